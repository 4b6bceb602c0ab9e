-- Wakes the other daemons: this one leaves work behind.
SELECT pg_notify('rowvec', '')
