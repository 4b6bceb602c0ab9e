-- Shows the chunks of sources beside what active models take at once, in tokens. Our own source is as we made it.
SELECT s.content_type, s.chunking, s.chunk_characters, m.name AS model, m.window_tokens
FROM rowvec.source s
CROSS JOIN rowvec.model m
WHERE m.active AND m.window_tokens IS NOT NULL AND s.relation <> 'rowvec.document'::regclass
ORDER BY s.content_type, m.name
