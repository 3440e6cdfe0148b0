//! Reading commands, in the grammars of all versions.
//!
//! Follows `src/backend/replication/repl_gram.y` of 10 to 19: keywords are upper case only, and a
//! command that begins with none of them is SQL.

use super::option_list::{OptionList, Value};
use super::scan::{Scanner, Token, fold};
use super::syntax_error::CommandSyntaxError;
use super::{AlterSlot, Command, DropSlot, LogicalSlot, PhysicalSlot, Snapshot};
use crate::{Lsn, SlotName, TimelineId};

/// The words with which replication commands begin.
const COMMANDS: [&str; 10] = [
    "IDENTIFY_SYSTEM",
    "BASE_BACKUP",
    "START_REPLICATION",
    "CREATE_REPLICATION_SLOT",
    "DROP_REPLICATION_SLOT",
    "ALTER_REPLICATION_SLOT",
    "READ_REPLICATION_SLOT",
    "TIMELINE_HISTORY",
    "SHOW",
    "UPLOAD_MANIFEST",
];

/// The other words that cannot be a name without quotes. (Those of `BASE_BACKUP`'s old grammar
/// can, since it is no more.)
const KEYWORDS: [&str; 11] = [
    "EXPORT_SNAPSHOT",
    "LOGICAL",
    "NOEXPORT_SNAPSHOT",
    "PHYSICAL",
    "RESERVE_WAL",
    "SLOT",
    "TEMPORARY",
    "TIMELINE",
    "TWO_PHASE",
    "USE_SNAPSHOT",
    "WAIT",
];

impl Command {
    /// Reads a command as a server does, in the grammar of any version: what begins with none of
    /// the replication commands' words is [`Command::Sql`]. What is left out has the value that
    /// the server gives it, which is not always this library's default.
    ///
    /// Takes no more memory than a few times the text.
    ///
    /// # Errors
    /// If it begins with a replication command's word and is not one, or has an impossible option.
    pub fn parse(text: &str) -> Result<Self, CommandSyntaxError> {
        let mut scanner = Scanner::new(text);
        match scanner.next() {
            Ok((_, Token::Word(word))) if COMMANDS.contains(&word) => {
                let (at, token) = scanner.next()?;
                let mut parser = Parser { scanner, token, at };
                let command = parser.command(word)?;
                parser.accept(b';')?;
                match parser.token {
                    Token::End => Ok(command),
                    _ => Err(parser.expected("the end of the command")),
                }
            }
            _ => Ok(Self::Sql(text.to_owned())),
        }
    }
}

/// One token ahead of what was read.
pub(super) struct Parser<'a> {
    scanner: Scanner<'a>,
    token: Token<'a>,
    at: usize,
}

impl<'a> Parser<'a> {
    fn command(&mut self, word: &str) -> Result<Command, CommandSyntaxError> {
        Ok(match word {
            "IDENTIFY_SYSTEM" => Command::IdentifySystem,
            "UPLOAD_MANIFEST" => Command::UploadManifest,
            "SHOW" => Command::Show(self.setting()?),
            "TIMELINE_HISTORY" => Command::TimelineHistory(self.timeline()?),
            "READ_REPLICATION_SLOT" => Command::ReadSlot(self.slot()?),
            "DROP_REPLICATION_SLOT" => {
                let slot = self.slot()?;
                let wait = self.keyword("WAIT")?;
                let active = if wait { DropSlot::Wait } else { DropSlot::FailIfActive };
                Command::DropSlot { slot, active }
            }
            "ALTER_REPLICATION_SLOT" => {
                let slot = self.slot()?;
                let mut options = self.option_list()?;
                let changes = AlterSlot {
                    failover: options.flag("failover")?,
                    two_phase: options.flag("two_phase")?,
                };
                options.finish()?;
                Command::AlterSlot { slot, changes }
            }
            "CREATE_REPLICATION_SLOT" => self.create_slot()?,
            "START_REPLICATION" => self.start_replication()?,
            _ => Command::BaseBackup(self.base_backup()?),
        })
    }

    fn create_slot(&mut self) -> Result<Command, CommandSyntaxError> {
        let slot = self.slot()?;
        let temporary = self.keyword("TEMPORARY")?;
        if self.keyword("PHYSICAL")? {
            let mut options = self.slot_options()?;
            let reserve_wal = options.flag("reserve_wal")?.unwrap_or(false);
            options.finish()?;
            let options = PhysicalSlot { temporary, reserve_wal };
            return Ok(Command::CreatePhysicalSlot { slot, options });
        }
        if !self.keyword("LOGICAL")? {
            return Err(self.expected("PHYSICAL or LOGICAL"));
        }
        let plugin = self.name()?;
        let mut options = self.slot_options()?;
        let snapshot = match options.text("snapshot")?.as_deref() {
            None | Some("export") => Snapshot::Export,
            Some("use") => Snapshot::Use,
            Some("nothing") => Snapshot::Nothing,
            Some(value) => return Err(CommandSyntaxError::Snapshot { value: value.to_owned() }),
        };
        let two_phase = options.flag("two_phase")?.unwrap_or(false);
        let failover = options.flag("failover")?.unwrap_or(false);
        options.finish()?;
        let options = LogicalSlot { plugin, temporary, snapshot, two_phase, failover };
        Ok(Command::CreateLogicalSlot { slot, options })
    }

    /// A list in parentheses, or the keywords of servers up to 14, which later ones know, too.
    fn slot_options(&mut self) -> Result<OptionList, CommandSyntaxError> {
        if self.token == Token::Symbol(b'(') {
            return self.option_list();
        }
        let mut options = OptionList::default();
        while let Token::Word(word) = self.token {
            let (name, value) = match word {
                "RESERVE_WAL" => ("reserve_wal", None),
                "TWO_PHASE" => ("two_phase", None),
                "EXPORT_SNAPSHOT" => ("snapshot", Some("export")),
                "NOEXPORT_SNAPSHOT" => ("snapshot", Some("nothing")),
                "USE_SNAPSHOT" => ("snapshot", Some("use")),
                _ => break,
            };
            self.advance()?;
            options.add(name.to_owned(), value.map(|value| Value::Text(value.to_owned())))?;
        }
        Ok(options)
    }

    fn start_replication(&mut self) -> Result<Command, CommandSyntaxError> {
        let slot = if self.keyword("SLOT")? { Some(self.slot()?) } else { None };
        match slot {
            Some(slot) if self.keyword("LOGICAL")? => {
                let from = self.position()?;
                let options = self.plugin_options()?;
                Ok(Command::StartLogicalReplication { slot, from, options })
            }
            slot => {
                self.keyword("PHYSICAL")?;
                let from = self.position()?;
                let timeline =
                    if self.keyword("TIMELINE")? { Some(self.timeline()?) } else { None };
                Ok(Command::StartReplication { slot, from, timeline })
            }
        }
    }

    fn plugin_options(&mut self) -> Result<Vec<(String, Option<String>)>, CommandSyntaxError> {
        let mut options = Vec::new();
        if !self.accept(b'(')? {
            return Ok(options);
        }
        loop {
            let name = self.name()?;
            let value = self.string()?;
            options.push((name, value));
            if !self.accept(b',')? {
                break;
            }
        }
        self.close()?;
        Ok(options)
    }

    /// `( name [value], … )`, at least one.
    pub(super) fn option_list(&mut self) -> Result<OptionList, CommandSyntaxError> {
        if !self.accept(b'(')? {
            return Err(self.expected("a list of options in parentheses"));
        }
        let mut options = OptionList::default();
        loop {
            let name = match &mut self.token {
                // Here a keyword is a name.
                Token::Word(word) => fold(word),
                Token::Quoted(name) => std::mem::take(name),
                _ => return Err(self.expected("the name of an option")),
            };
            self.advance()?;
            let value = match &mut self.token {
                Token::Word(word) if !is_keyword(word) => Some(Value::Text(fold(word))),
                Token::Quoted(text) | Token::Text(text) => Some(Value::Text(std::mem::take(text))),
                Token::Number(number) => Some(Value::Number(*number)),
                _ => None,
            };
            if value.is_some() {
                self.advance()?;
            }
            options.add(name, value)?;
            if !self.accept(b',')? {
                break;
            }
        }
        self.close()?;
        Ok(options)
    }

    fn close(&mut self) -> Result<(), CommandSyntaxError> {
        if self.accept(b')')? { Ok(()) } else { Err(self.expected("`,` or `)`")) }
    }

    /// A setting's name, whose case means nothing, not even in quotes.
    fn setting(&mut self) -> Result<String, CommandSyntaxError> {
        let mut setting = self.name()?;
        while self.accept(b'.')? {
            setting.push('.');
            setting.push_str(&self.name()?);
        }
        setting.make_ascii_lowercase();
        Ok(setting)
    }

    fn slot(&mut self) -> Result<SlotName, CommandSyntaxError> {
        Ok(self.name()?.parse()?)
    }

    fn name(&mut self) -> Result<String, CommandSyntaxError> {
        let name = match &mut self.token {
            Token::Word(word) if !is_keyword(word) => fold(word),
            Token::Quoted(name) => std::mem::take(name),
            _ => return Err(self.expected("a name")),
        };
        self.advance()?;
        Ok(name)
    }

    /// A string, if there is one.
    pub(super) fn string(&mut self) -> Result<Option<String>, CommandSyntaxError> {
        let Token::Text(text) = &mut self.token else { return Ok(None) };
        let text = std::mem::take(text);
        self.advance()?;
        Ok(Some(text))
    }

    /// A number, if there is one.
    pub(super) fn number(&mut self) -> Result<Option<u32>, CommandSyntaxError> {
        let Token::Number(number) = self.token else { return Ok(None) };
        self.advance()?;
        Ok(Some(number))
    }

    fn timeline(&mut self) -> Result<TimelineId, CommandSyntaxError> {
        let error = self.expected("a timeline, a number from 1 on");
        self.number()?.and_then(TimelineId::new).ok_or(error)
    }

    fn position(&mut self) -> Result<Lsn, CommandSyntaxError> {
        let Token::Position(lsn) = self.token else {
            return Err(self.expected("a position such as 0/16B3748"));
        };
        self.advance()?;
        Ok(lsn)
    }

    /// The word, whatever it is.
    pub(super) fn word(&self) -> Option<&'a str> {
        match self.token {
            Token::Word(word) => Some(word),
            _ => None,
        }
    }

    /// Whether the keyword comes, which is then read.
    pub(super) fn keyword(&mut self, keyword: &str) -> Result<bool, CommandSyntaxError> {
        let comes = self.word() == Some(keyword);
        if comes {
            self.advance()?;
        }
        Ok(comes)
    }

    /// Whether the symbol comes, which is then read.
    fn accept(&mut self, symbol: u8) -> Result<bool, CommandSyntaxError> {
        let comes = self.token == Token::Symbol(symbol);
        if comes {
            self.advance()?;
        }
        Ok(comes)
    }

    pub(super) fn begins_list(&self) -> bool {
        self.token == Token::Symbol(b'(')
    }

    pub(super) fn advance(&mut self) -> Result<(), CommandSyntaxError> {
        (self.at, self.token) = self.scanner.next()?;
        Ok(())
    }

    pub(super) fn expected(&self, expected: &'static str) -> CommandSyntaxError {
        CommandSyntaxError::Unexpected { at: self.at, expected }
    }
}

fn is_keyword(word: &str) -> bool {
    COMMANDS.contains(&word) || KEYWORDS.contains(&word)
}
