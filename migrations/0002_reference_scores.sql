-- Log-probabilities of completions under frozen models. They are facts about a model and a text, so they outlive the job that
-- computed them: the next job on the same rows is handed them. They go when the last model with their digest is deleted; the
-- deletion of a file leaves them (they hold digests, no text, and serve the next upload of the same rows).

-- Who was asked, and how exactly: two precisions never share a score.
create table score_references (
    id        integer primary key,
    reference text not null, -- digest of the model's files
    precision text not null,
    unique (reference, precision)
) strict;

create table reference_scores (
    reference_id integer not null references score_references (id) on delete cascade,
    row_digest   blob    not null check (length(row_digest) = 32),
    logp         real    not null,
    n_tokens     real    not null,
    primary key (reference_id, row_digest)
) strict, without rowid;

-- Which rows the runs on a training file have used. Whoever starts a run cannot compute the digests of its rows, that takes a
-- tokenizer; by file it can hand over what belongs to a job out of millions of rows.
create table score_files (
    seq          integer primary key autoincrement,
    reference_id integer not null references score_references (id) on delete cascade,
    file         text    not null, -- sha256 of its content
    unique (reference_id, file)
) strict;

create table score_file_rows (
    file_seq   integer not null references score_files (seq) on delete cascade,
    row_digest blob    not null,
    primary key (file_seq, row_digest)
) strict, without rowid;

-- How far scores.out.jsonl has been recorded.
alter table runs add column scores_offset integer not null default 0;

-- Before kept scores are deleted: is another model of the same content left?
create index models_by_digest on models (json_extract(info, '$.digest'));
