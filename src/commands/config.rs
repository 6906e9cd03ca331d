//! `mrpo config check`: what a server would use, and whether it could start with it.

use anyhow::Result;
use mrpo::{http, store::Store};

use crate::config::ServeArgs;

/// Checks everything that `mrpo serve` checks before it listens, and prints what it would use; starts and makes nothing.
pub(crate) fn check(args: ServeArgs) -> Result<()> {
    let shown = args.clone();
    let config = args.resolve()?;
    if let Some((certificate, key)) = &config.tls {
        http::tls(certificate, key)?;
    }
    let data_dir = &config.api.data_dir;
    let has_keys = data_dir.join(Store::FILE_NAME).is_file() && {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async { Store::open(data_dir).await?.has_keys().await })?
    };
    config.check_listen(has_keys)?;
    for (name, value) in shown.entries() {
        println!("{name} = {value}");
    }
    println!(
        "# {}",
        if has_keys { "everybody is asked for a key" } else { "nobody is asked for a key: there is none yet" }
    );
    Ok(())
}
