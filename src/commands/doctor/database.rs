//! The database: sound, of this version, and what its rows say.

use std::path::Path;

use mrpo::store::{Checkup, SchemaAge, Store, StoreError, unix_now};

use super::{Report, contents, size};
use crate::config::ServeConfig;

/// A write-ahead log above this is not folded into the database as it should be.
const LARGE_LOG_BYTES: u64 = 256 << 20;
/// A clock may be so far behind the newest row.
const CLOCK_SLACK_S: i64 = 60;
/// What to do about a damaged database.
const RESTORE: &str = "stop the server and restore a backup (`mrpo restore`), or move it away to begin anew";

/// Looks at the database, and at the files its rows name.
pub(super) async fn look(data_dir: &Path, is_served: bool, config: Option<&ServeConfig>, report: &mut Report) {
    let path = data_dir.join(Store::FILE_NAME);
    if !path.is_file() {
        report.warn("database", format!("{} is not there", path.display()), "`mrpo serve` makes it");
        return;
    }
    // Listed before the rows: whatever has its row now had its file before.
    let listed = contents::Listed::of(data_dir);
    let found = async {
        let database = Checkup::open(data_dir, is_served).await?;
        if is_sound(&database, report).await? {
            rows(&database, config, report).await?;
            listed.compare(data_dir, is_served, &database, report).await?;
        }
        Ok::<_, StoreError>(())
    };
    if let Err(e) = found.await {
        let to_do = if e.is_damage() { RESTORE } else { "make it readable for this user, or try again" };
        report.fail("database", chain(&e), to_do);
    }
    let log_bytes = Checkup::log_file(data_dir).metadata().map_or(0, |metadata| metadata.len());
    if log_bytes > LARGE_LOG_BYTES {
        let to_do = "something reads it for too long: restart the server, which folds it into the database";
        report.warn("database", format!("its write-ahead log has {}", size(log_bytes)), to_do);
    }
}

async fn is_sound(database: &Checkup, report: &mut Report) -> Result<bool, StoreError> {
    let damage = database.damage().await?;
    if !damage.is_empty() {
        report.fail_each("database", &damage, RESTORE);
        return Ok(false);
    }
    match database.schema_age().await? {
        SchemaAge::Same => {
            report.ok("database", "sound, and of this version");
            Ok(true)
        }
        SchemaAge::Older { version } => {
            let what = format!("an older mrpo has written it (migration {version}); its rows were not looked at");
            report.warn("database", what, "make a backup; the next start of `mrpo serve` brings it up to date");
            Ok(false)
        }
        SchemaAge::Newer { version } => {
            let what = format!("a newer mrpo has written it (migration {version} is unknown to this one)");
            report.fail("database", what, "use that version or a newer one");
            Ok(false)
        }
    }
}

async fn rows(database: &Checkup, config: Option<&ServeConfig>, report: &mut Report) -> Result<(), StoreError> {
    let has_keys = database.has_keys().await?;
    if let Some(Err(e)) = config.map(|config| config.check_listen(has_keys)) {
        report.fail("config", "other machines would reach a server that asks nobody for a key", e.to_string());
    }
    let behind = database.newest_at().await?.map_or(0, |newest| newest - unix_now());
    if behind > CLOCK_SLACK_S {
        let to_do = "set the clock (ntp): files expire, keys end and jobs take turns by it";
        report.fail("clock", format!("it is {behind} seconds behind the newest row of the database"), to_do);
    } else {
        report.ok("clock", "not behind the database");
    }
    Ok(())
}

fn chain(error: &StoreError) -> String {
    let (mut text, mut next) = (error.to_string(), std::error::Error::source(error));
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}
