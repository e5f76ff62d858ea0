-- A watcher, for sessions that set ectowatch.mute.
SELECT ectowatch_watch(:'table', 'changed', extra_columns => '{n}');
