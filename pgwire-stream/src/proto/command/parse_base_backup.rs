//! Reading `BASE_BACKUP`, in both of its grammars.
//!
//! Follows `parse_basebackup_options` in `src/backend/backup/basebackup.c` and
//! `parse_compress_specification` in `src/common/compression.c`.

use super::base_backup::{MAX_LABEL, RATES};
use super::option_list::{OptionList, Value, boolean};
use super::parse::Parser;
use super::syntax_error::CommandSyntaxError;
use super::{
    BackupTarget, BaseBackupOptions, CompressionMethod, ManifestChecksums, ServerCompression,
};

type Result<T> = std::result::Result<T, CommandSyntaxError>;

impl Parser<'_> {
    pub(super) fn base_backup(&mut self) -> Result<BaseBackupOptions> {
        let mut options =
            if self.begins_list() { self.option_list()? } else { self.backup_keywords()? };
        let backup = interpret(&mut options)?;
        options.finish()?;
        Ok(backup)
    }

    /// The words of servers up to 14, in any order, as the options of later ones.
    fn backup_keywords(&mut self) -> Result<OptionList> {
        let mut options = OptionList::default();
        while let Some(word) = self.word() {
            self.advance()?;
            let (name, value) = match word {
                "LABEL" => ("label", Some(self.backup_text()?)),
                "PROGRESS" => ("progress", None),
                "FAST" => ("checkpoint", Some(Value::Text("fast".to_owned()))),
                "WAL" => ("wal", None),
                "NOWAIT" => ("wait", Some(Value::Number(0))),
                "MAX_RATE" => {
                    let error = self.expected("a number");
                    ("max_rate", Some(Value::Number(self.number()?.ok_or(error)?)))
                }
                "TABLESPACE_MAP" => ("tablespace_map", None),
                "NOVERIFY_CHECKSUMS" => ("verify_checksums", Some(Value::Number(0))),
                "MANIFEST" => ("manifest", Some(self.backup_text()?)),
                "MANIFEST_CHECKSUMS" => ("manifest_checksums", Some(self.backup_text()?)),
                _ => return Err(self.expected("another option before this")),
            };
            options.add(name.to_owned(), value)?;
        }
        Ok(options)
    }

    fn backup_text(&mut self) -> Result<Value> {
        let error = self.expected("a string");
        self.string()?.map(Value::Text).ok_or(error)
    }
}

fn interpret(options: &mut OptionList) -> Result<BaseBackupOptions> {
    let label = options.text("label")?.unwrap_or_else(|| "base backup".to_owned());
    if label.len() > MAX_LABEL {
        return Err(CommandSyntaxError::LabelTooLong);
    }
    let max_rate_kb = options.number("max_rate")?;
    if let Some(rate) = max_rate_kb.filter(|rate| !RATES.contains(rate)) {
        return Err(CommandSyntaxError::RateOutOfRange { rate });
    }
    let fast_checkpoint = match options.text("checkpoint")? {
        None => false,
        Some(text) if text.eq_ignore_ascii_case("spread") => false,
        Some(text) if text.eq_ignore_ascii_case("fast") => true,
        Some(_) => return Err(OptionList::error("checkpoint", "is neither fast nor spread")),
    };
    let (manifest, force_encode) = manifest(options)?;
    let mut flag = |name, default| -> Result<bool> { Ok(options.flag(name)?.unwrap_or(default)) };
    Ok(BaseBackupOptions {
        label,
        fast_checkpoint,
        wal: flag("wal", false)?,
        wait: flag("wait", true)?,
        progress: flag("progress", false)?,
        max_rate_kb,
        tablespace_map: flag("tablespace_map", false)?,
        manifest,
        force_encode,
        verify_checksums: flag("verify_checksums", true)?,
        incremental: flag("incremental", false)?,
        compression: compression(options)?,
        target: target(options)?,
    })
}

fn manifest(options: &mut OptionList) -> Result<(Option<ManifestChecksums>, bool)> {
    let (wanted, force_encode) = match options.text("manifest")? {
        None => (false, false),
        Some(text) if text.eq_ignore_ascii_case("force-encode") => (true, true),
        Some(text) => match boolean(&text) {
            Some(wanted) => (wanted, false),
            None => return Err(OptionList::error("manifest", "has an unknown value")),
        },
    };
    let checksums = match options.text("manifest_checksums")? {
        None => None,
        Some(text) => {
            let named = |kind: &&ManifestChecksums| kind.name().eq_ignore_ascii_case(&text);
            let unknown = OptionList::error("manifest_checksums", "has an unknown value");
            Some(*ManifestChecksums::ALL.iter().find(named).ok_or(unknown)?)
        }
    };
    match (wanted, checksums) {
        (true, checksums) => Ok((Some(checksums.unwrap_or_default()), force_encode)),
        (false, None) => Ok((None, false)),
        (false, Some(_)) => Err(OptionList::error("manifest_checksums", "needs a manifest")),
    }
}

fn target(options: &mut OptionList) -> Result<BackupTarget> {
    let detail = options.text("target_detail")?;
    let superfluous = OptionList::error("target_detail", "does not belong to this target");
    match (options.text("target")?.as_deref(), detail) {
        (None | Some("client"), None) => Ok(BackupTarget::Client),
        (Some("blackhole"), None) => Ok(BackupTarget::Blackhole),
        (None | Some("client" | "blackhole"), Some(_)) => Err(superfluous),
        (Some("server"), Some(path)) => Ok(BackupTarget::Server(path)),
        (Some("server"), None) => Err(OptionList::error("target", "requires a target detail")),
        (Some(name), detail) => Ok(BackupTarget::Extension { name: name.to_owned(), detail }),
    }
}

fn compression(options: &mut OptionList) -> Result<Option<ServerCompression>> {
    let detail = options.text("compression_detail")?;
    let method = match options.text("compression")?.as_deref() {
        None | Some("none") => None,
        Some(text) => {
            let named = |method: &&CompressionMethod| method.name() == text;
            let unknown = OptionList::error("compression", "has an unknown value");
            Some(*CompressionMethod::ALL.iter().find(named).ok_or(unknown)?)
        }
    };
    match (method, detail) {
        (None, None) => Ok(None),
        (None, Some(_)) => Err(OptionList::error("compression_detail", "needs a compression")),
        (Some(method), None) => Ok(Some(ServerCompression::new(method))),
        (Some(method), Some(detail)) => compression_with(method, &detail).map(Some),
    }
}

/// A level, or `level=…`, `workers=…` and `long`, of which the last of each kind counts.
fn compression_with(method: CompressionMethod, detail: &str) -> Result<ServerCompression> {
    let error = |problem| OptionList::error("compression_detail", problem);
    let (mut level, mut workers, mut long) = (None, None, false);
    if let Ok(number) = detail.parse::<i32>() {
        level = Some(number);
    } else {
        for part in detail.split(',') {
            let (name, value) = match part.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (part, None),
            };
            let number = || error("requires a number");
            match name {
                "level" => {
                    level = Some(value.and_then(|v| v.parse().ok()).ok_or_else(number)?);
                }
                "workers" => {
                    workers = Some(value.and_then(|v| v.parse().ok()).ok_or_else(number)?);
                }
                "long" => {
                    long = value.map_or(Some(true), switch).ok_or_else(|| {
                        error("requires a Boolean value for long-distance matching")
                    })?;
                }
                _ => return Err(error("has an unknown part")),
            }
        }
    }
    match (method, workers, long) {
        (CompressionMethod::Zstd, workers, long) => {
            Ok(ServerCompression::Zstd { level, workers, long })
        }
        (CompressionMethod::Gzip, None, false) => Ok(ServerCompression::Gzip { level }),
        (CompressionMethod::Lz4, None, false) => Ok(ServerCompression::Lz4 { level }),
        _ => Err(error("has a part that this method does not accept")),
    }
}

/// The only Booleans in `COMPRESSION_DETAIL`.
fn switch(text: &str) -> Option<bool> {
    let is = |words: [&str; 3]| words.iter().any(|word| word.eq_ignore_ascii_case(text));
    match (is(["yes", "on", "1"]), is(["no", "off", "0"])) {
        (true, _) => Some(true),
        (_, true) => Some(false),
        _ => None,
    }
}
