-- A watcher of everything, with a message per change.
SELECT ectowatch_watch(:'table', 'changed', extra_columns => '{n}');
