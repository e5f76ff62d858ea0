-- A watcher whose changes go to the ring only.
SELECT ectowatch_watch(:'table', 'changed', extra_columns => '{n}', delivery => 'none');
