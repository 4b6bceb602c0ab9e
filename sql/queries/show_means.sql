-- What the server lets the build of an index have: bytes of memory, bytes of cache that it counts on, processes.
SELECT pg_size_bytes(current_setting('maintenance_work_mem')) AS memory_bytes,
       pg_size_bytes(current_setting('effective_cache_size')) AS cache_bytes,
       current_setting('max_parallel_maintenance_workers')::integer AS usual_workers,
       least(current_setting('max_parallel_workers')::integer, current_setting('max_worker_processes')::integer)
           AS most_workers
