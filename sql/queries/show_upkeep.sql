-- How full the queue of notifications is, from 0 to 1, and whether vacuum comes by itself.
SELECT pg_notification_queue_usage() AS notification_queue, current_setting('autovacuum')::boolean AS autovacuum
