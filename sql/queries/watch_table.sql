-- Watches a table; false when it was watched just so before.
-- $1 relation: text, $2 content_type: text, $3 columns: text[], $4 priority: integer, $5 template: text,
-- $6 owner_column: text, $7 chunking: text, $8 chunk_characters: integer, $9 chunk_overlap: integer,
-- $10 notify: boolean, $11 key: text[], $12 condition: text, $13 text_function: text, $14 depends_on: text,
-- $15 urgent_rows: integer, $16 trigger_name: text, $17 function_name: text
SELECT rowvec.watch(
    rowvec.find_table($1::text), $2::text, $3::text[], $4::integer, $5::text, $6::text, $7::text, $8::integer,
    $9::integer, $10::boolean, $11::text[], $12::text, rowvec.find_function($13::text), $14::text::jsonb,
    $15::integer, $16::text, $17::text) AS changed
