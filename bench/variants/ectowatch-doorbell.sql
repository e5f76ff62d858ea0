-- A watcher that says on its channel only that there are changes.
SELECT ectowatch_watch(:'table', 'changed', extra_columns => '{n}', delivery => 'doorbell');
