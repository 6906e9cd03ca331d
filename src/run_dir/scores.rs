//! Reference scores on their way in (`scores.in.jsonl`) and out (`scores.out.jsonl`).

use std::{
    fs::File,
    io::{self, BufRead, BufReader, BufWriter, Write},
    path::{Path, PathBuf},
};

use super::{RunDir, lines, sync_dir};
use crate::domain::ReferenceScore;

impl RunDir {
    /// `scores.in.jsonl`.
    pub fn scores_in(&self) -> PathBuf {
        self.root.join("scores.in.jsonl")
    }

    /// `scores.out.jsonl`.
    pub fn scores_out(&self) -> PathBuf {
        self.root.join("scores.out.jsonl")
    }

    /// Whole lines of `scores.out.jsonl` from `offset` on, at most `max_bytes` of them, and the offset to go on from.
    ///
    /// Where no line begins at `offset` (a power cut took the end of the file, the database has kept its own) it begins again
    /// at the start: scores recorded twice are recorded once.
    pub fn read_scores(&self, offset: u64, max_bytes: u64) -> io::Result<(Vec<ReferenceScore>, u64)> {
        let path = self.scores_out();
        let offset = if lines::begins_at(&path, offset)? { offset } else { 0 };
        let (scores, next) = lines::read(&path, offset, max_bytes)?;
        for (at, score) in &scores {
            check(score).map_err(|why| invalid(&path, &format!("at byte {at}"), why))?;
        }
        Ok((scores.into_iter().map(|(_, score)| score).collect(), next))
    }
}

/// `scores.in.jsonl` while it is written: beside its place until [`Self::finish`].
#[derive(Debug)]
pub struct ScoresIn {
    file: BufWriter<File>,
    beside: PathBuf,
    path: PathBuf,
}

impl ScoresIn {
    /// Begins it anew; makes the run's directory where there is none.
    pub fn create(run: &RunDir) -> io::Result<Self> {
        std::fs::create_dir_all(&run.root)?;
        let path = run.scores_in();
        let beside = path.with_extension("tmp");
        Ok(Self { file: BufWriter::new(File::create(&beside)?), beside, path })
    }

    /// Adds some.
    pub fn append(&mut self, scores: &[ReferenceScore]) -> io::Result<()> {
        for score in scores {
            serde_json::to_writer(&mut self.file, score)?;
            self.file.write_all(b"\n")?;
        }
        Ok(())
    }

    /// Gives it its name, once all of it is on the disk.
    pub fn finish(self) -> io::Result<()> {
        self.file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        std::fs::rename(&self.beside, &self.path)?;
        sync_dir(self.path.parent().unwrap_or(Path::new(".")))
    }
}

/// Reads all of a file of scores; one that is absent holds none.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`], with line and reason, for a line that is no score or is cut off: [`super::JsonLines::open`]
/// has removed the end of a write that was cut off, and nothing else may be missing.
pub fn read_all_scores(path: &Path, mut each: impl FnMut(ReferenceScore)) -> io::Result<()> {
    let mut file = match File::open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => BufReader::new(other?),
    };
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        if file.read_until(b'\n', &mut line)? == 0 {
            break;
        }
        let failed = |why: String| invalid(path, &format!("line {number}"), why);
        if !line.ends_with(b"\n") {
            return Err(failed("is cut off".into()));
        }
        let score: ReferenceScore = serde_json::from_slice(&line).map_err(|e| failed(e.to_string()))?;
        check(&score).map_err(failed)?;
        each(score);
    }
    Ok(())
}

fn check(score: &ReferenceScore) -> Result<(), String> {
    if score.row.len() != 64 || !score.row.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return Err("the row is not 64 hexadecimal digits".into());
    }
    if score.n_tokens < 0.0 {
        return Err("n_tokens is negative".into());
    }
    Ok(())
}

fn invalid(path: &Path, place: &str, why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{}, {place}: {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{domain::ScorePrecision, run_dir::JsonLines};

    fn score(i: u64) -> ReferenceScore {
        ReferenceScore {
            reference: "sha256:7".into(),
            precision: ScorePrecision::Bfloat16,
            row: format!("{i:064x}"),
            line: Some(i),
            logp: -(i as f64) / 3.0,
            n_tokens: 2.5,
            is_of_file: false,
        }
    }

    fn all(path: &Path) -> io::Result<Vec<ReferenceScore>> {
        let mut scores = Vec::new();
        read_all_scores(path, |score| scores.push(score)).map(|()| scores)
    }

    #[test]
    fn what_is_handed_over_has_its_name_only_when_all_of_it_is_there() {
        let dir = tempfile::tempdir().expect("temp dir");
        let run = RunDir::new(dir.path().join("run"));
        let mut file = ScoresIn::create(&run).expect("made");
        file.append(&[score(1)]).expect("written");
        assert_eq!(all(&run.scores_in()).expect("absent"), []);
        file.append(&[ReferenceScore { is_of_file: true, line: None, ..score(2) }]).expect("written");
        file.finish().expect("named");
        let read = all(&run.scores_in()).expect("read");
        assert_eq!((read.len(), &read[0], read[1].is_of_file), (2, &score(1), true));
    }

    #[test]
    fn a_line_that_is_no_score_is_named_and_a_torn_end_is_not() {
        let dir = tempfile::tempdir().expect("temp dir");
        let run = RunDir::new(dir.path());
        let path = run.scores_out();
        let line = |i| serde_json::to_string(&score(i)).expect("json") + "\n";
        std::fs::write(&path, line(1) + &line(2) + "{\"refer").expect("written");
        assert!(all(&path).expect_err("torn").to_string().ends_with("line 3: is cut off"));
        let (scores, next) = run.read_scores(0, 1 << 20).expect("read");
        assert_eq!((scores.len(), next), (2, 2 * line(1).len() as u64));
        JsonLines::open(&path).and_then(|mut f| f.append(&score(3))).expect("appended");
        assert_eq!(all(&path).expect("read"), [score(1), score(2), score(3)]);
        assert_eq!(run.read_scores(next, 1 << 20).expect("read").0, [score(3)]);
        for (bad, why) in [("{}\n", "missing field"), (&line(4).replace("000", "00"), "64 hexadecimal")] {
            std::fs::write(&path, line(1) + bad + &line(2)).expect("written");
            let error = all(&path).expect_err(why).to_string();
            assert!(error.contains("line 2") && error.contains(why), "{error}");
            let error = run.read_scores(0, 1 << 20).expect_err(why).to_string();
            assert!(error.contains("at byte") && error.contains(why), "{error}");
        }
    }

    #[test]
    fn an_offset_that_fits_no_line_begins_again() {
        let dir = tempfile::tempdir().expect("temp dir");
        let run = RunDir::new(dir.path());
        let mut file = JsonLines::open(&run.scores_out()).expect("opened");
        for i in 1..3 {
            file.append(&score(i)).expect("appended");
        }
        for offset in [5, 100_000] {
            assert_eq!(run.read_scores(offset, 1 << 20).expect("read").0.len(), 2);
        }
        let one = serde_json::to_vec(&score(1)).expect("json").len() as u64 + 1;
        assert_eq!(run.read_scores(one, 1 << 20).expect("read").0, [score(2)]);
        assert_eq!(run.read_scores(2 * one, 1 << 20).expect("read"), (Vec::new(), 2 * one));
    }
}
