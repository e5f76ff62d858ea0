-- 4 watchers of everything.
SELECT ectowatch_watch(:'table', 'changed', label => 'bench_4' || chr(96 + i), extra_columns => '{n}')
FROM generate_series(1, 4) AS i;
