//! `mrpo keys`: who may use the server. It works on the data directory itself, with or without a server on it: whoever can write
//! there is trusted already.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::{Args, Subcommand, ValueEnum};
use mrpo::{
    domain::{ApiKey, KeyId, NewKey, Role, Scope, UserName},
    store::{Store, unix_now},
};

/// `mrpo keys`, as typed.
#[derive(Debug, Clone, Args)]
pub(crate) struct KeysArgs {
    /// The server's data directory.
    #[arg(long, env = "MRPO_DATA_DIR", default_value = "./mrpo-data", value_name = "DIR", global = true)]
    data_dir: PathBuf,
    #[command(subcommand)]
    command: KeysCommand,
}

#[derive(Debug, Clone, Subcommand)]
enum KeysCommand {
    /// Makes a key and shows it, this once. From the first key on everybody is asked for one.
    Create {
        /// Whose it is; a person may have several.
        #[arg(long, value_name = "NAME")]
        user: UserName,
        /// A member sees their own things and what is shared; an admin everything, and makes keys.
        #[arg(long, value_enum, default_value = "member")]
        role: RoleArg,
        /// What it allows: to look, or everything.
        #[arg(long, value_enum, default_value = "write")]
        scope: ScopeArg,
        /// After how many days it stops working; never, if not given.
        #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=36_500))]
        expires_in_days: Option<u32>,
    },
    /// Lists all keys, without what makes them keys.
    List,
    /// Makes a key stop working, at once and for good.
    Revoke {
        /// Its id: see `mrpo keys list`.
        id: KeyId,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum RoleArg {
    Member,
    Admin,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ScopeArg {
    Read,
    Write,
}

/// Does what was typed.
pub(crate) fn keys(args: KeysArgs) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        if matches!(args.command, KeysCommand::Create { .. }) {
            fs_err::create_dir_all(&args.data_dir)?;
        }
        let data_dir = &args.data_dir;
        ensure!(
            data_dir.is_dir(),
            "there is no data directory {}: name the server's with --data-dir",
            data_dir.display()
        );
        let store = Store::open(data_dir).await.context("the database cannot be opened")?;
        let done = execute(&store, args.command).await;
        store.close().await;
        done
    })
}

async fn execute(store: &Store, command: KeysCommand) -> Result<()> {
    match command {
        KeysCommand::Create { user, role, scope, expires_in_days } => {
            let role = if role == RoleArg::Admin { Role::Admin } else { Role::Member };
            let has_admin = store.keys().await?.iter().any(|k| k.made.role == Role::Admin && k.is_valid_at(unix_now()));
            ensure!(
                role == Role::Admin || has_admin,
                "the first key must be an admin's: --role admin (a member cannot see what others own, nor make keys)"
            );
            let new = NewKey {
                user,
                role,
                scope: if scope == ScopeArg::Read { Scope::Read } else { Scope::Write },
                expires_at: expires_in_days.map(|days| unix_now() + i64::from(days) * 86_400),
            };
            let (key, secret) = store.create_key(&new).await?;
            eprintln!(
                "{} for {}, shown this once (clients read it from MRPO_API_KEY, or OPENAI_API_KEY):",
                key.id, new.user
            );
            println!("{}", secret.reveal());
        }
        KeysCommand::List => {
            for key in store.keys().await? {
                println!("{}", line(&key));
            }
        }
        KeysCommand::Revoke { id } => {
            store.revoke_key(&id).await?;
            println!("revoked {id}");
        }
    }
    Ok(())
}

fn line(key: &ApiKey) -> String {
    let state = match (key.revoked_at, key.is_valid_at(unix_now())) {
        (Some(_), _) => "revoked",
        (None, false) => "expired",
        (None, true) => "valid",
    };
    let used = key.last_used_at.map_or_else(|| "never used".to_owned(), |at| format!("used {}", ago(unix_now() - at)));
    let role = if key.made.role == Role::Admin { "admin" } else { "member" };
    let scope = if key.made.scope == Scope::Read { "read" } else { "write" };
    format!("{}  {:<20} {role:<7} {scope:<6} {state:<8} {}…  {used}", key.id, key.made.user.as_str(), key.prefix)
}

/// A number of seconds as people say it.
fn ago(seconds: i64) -> String {
    match seconds {
        ..120 => "just now".to_owned(),
        120..7_200 => format!("{} minutes ago", seconds / 60),
        7_200..172_800 => format!("{} hours ago", seconds / 3_600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}
