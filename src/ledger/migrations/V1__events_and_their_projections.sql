-- What happened, one row each, for ever. Every other table can be made again from this one.
CREATE TABLE events (
    seq          INTEGER PRIMARY KEY,
    at           TEXT NOT NULL,
    kind         TEXT NOT NULL,
    subject      TEXT NOT NULL,
    content      TEXT NOT NULL,
    content_hash TEXT NOT NULL,
    prev         TEXT NOT NULL,
    hash         TEXT NOT NULL
) STRICT;

CREATE INDEX events_by_subject ON events (subject, seq);

-- Refuses gaps and forks, and with them INSERT OR REPLACE, which deletes without a DELETE trigger.
CREATE TRIGGER events_only_grow BEFORE INSERT ON events
WHEN NEW.seq IS NOT (SELECT coalesce(max(seq), 0) + 1 FROM events)
  OR NEW.prev IS NOT coalesce((SELECT hash FROM events ORDER BY seq DESC LIMIT 1), '')
BEGIN
    SELECT raise(ABORT, 'events are only added at the end of the chain');
END;

CREATE TRIGGER events_stay BEFORE DELETE ON events
BEGIN
    SELECT raise(ABORT, 'events are never deleted');
END;

-- The one change that is allowed: the content of an event whose redaction is an event already.
CREATE TRIGGER events_are_not_edited BEFORE UPDATE ON events
WHEN NEW.seq IS NOT OLD.seq OR NEW.at IS NOT OLD.at OR NEW.kind IS NOT OLD.kind OR NEW.subject IS NOT OLD.subject
  OR NEW.content_hash IS NOT OLD.content_hash OR NEW.prev IS NOT OLD.prev OR NEW.hash IS NOT OLD.hash
  OR OLD.kind IS 'redacted'
  OR json_type(NEW.content, '$.redacted') IS NOT 'text'
  OR NOT EXISTS (SELECT 1 FROM events WHERE kind = 'redacted' AND subject = CAST(OLD.seq AS TEXT))
BEGIN
    SELECT raise(ABORT, 'events are never edited; redact one instead');
END;

CREATE TABLE runs (
    seq          INTEGER PRIMARY KEY REFERENCES events (seq),
    id           TEXT NOT NULL UNIQUE,
    experiment   TEXT NOT NULL,
    title        TEXT NOT NULL,
    owner        TEXT,
    system       TEXT,
    seed         TEXT NOT NULL,
    fault_kinds  TEXT NOT NULL,
    inject_at    TEXT NOT NULL,
    follow_up_of TEXT,
    state        TEXT NOT NULL CHECK (state IN ('open', 'closed', 'interrupted')),
    started_at   TEXT NOT NULL,
    ended_at     TEXT,
    ending       TEXT,
    ended_by     TEXT,
    class        TEXT,
    score        INTEGER,
    seen         TEXT,
    report_seq   INTEGER REFERENCES events (seq)
) STRICT;

CREATE INDEX runs_that_are_open ON runs (id) WHERE state = 'open';

CREATE TABLE failures (
    seq          INTEGER PRIMARY KEY REFERENCES events (seq),
    id           TEXT NOT NULL UNIQUE,
    fingerprint  TEXT NOT NULL UNIQUE,
    experiment   TEXT NOT NULL,
    fault        TEXT NOT NULL,
    inject_at    TEXT NOT NULL,
    indicator    TEXT NOT NULL,
    class        TEXT NOT NULL,
    title        TEXT NOT NULL,
    state        TEXT NOT NULL CHECK (state IN ('failed', 'hypothesis', 'testing', 'analysed', 'iterated')),
    opened_at    TEXT NOT NULL,
    seen_at      TEXT NOT NULL,
    review_due   TEXT NOT NULL,
    decision_due TEXT NOT NULL,
    came_back    INTEGER NOT NULL DEFAULT 0,
    closed_at    TEXT,
    closed_by    TEXT REFERENCES runs (id)
) STRICT;

CREATE TABLE occurrences (
    seq     INTEGER PRIMARY KEY REFERENCES events (seq),
    failure TEXT NOT NULL REFERENCES failures (id),
    run     TEXT NOT NULL UNIQUE REFERENCES runs (id)
) STRICT;

CREATE INDEX occurrences_by_failure ON occurrences (failure);

-- Its rowid is the run's seq.
CREATE VIRTUAL TABLE words USING fts5 (experiment, title, seen, findings, tokenize = 'unicode61 remove_diacritics 2');
