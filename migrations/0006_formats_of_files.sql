-- The format a file was said to be in when it was uploaded; absent: it is told from the file's rows. It has to outlive a restart
-- between the upload and the end of the check.
alter table files add column format text;
