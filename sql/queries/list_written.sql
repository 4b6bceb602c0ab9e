-- What this transaction has written: the sources that are watched otherwise from now on, and new models.
SELECT ARRAY(SELECT s.content_type FROM rowvec.source s WHERE s.xmin = pg_current_xact_id()::xid ORDER BY 1) AS sources,
       ARRAY(SELECT m.name FROM rowvec.model m
             WHERE m.xmin = pg_current_xact_id()::xid AND m.created_at = now() ORDER BY 1) AS models
