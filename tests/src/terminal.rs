//! A program at a terminal, and somebody who reads its questions and types answers.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::failure::{Context, Failure, Result};

/// How long a program may take to say something.
const PATIENCE: Duration = Duration::from_secs(60);

/// A program whose standard input, output and error are a terminal.
#[derive(Debug)]
pub struct Terminal {
    child: Child,
    keyboard: File,
    said: Receiver<Vec<u8>>,
    screen: String,
    /// How much of the screen was looked at.
    read: usize,
}

impl Terminal {
    /// Starts the command at a new terminal.
    pub fn start(command: &mut Command) -> Result<Self> {
        let about = || "cannot make a terminal".to_owned();
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).context(about)?;
        grantpt(&ours).context(about)?;
        unlockpt(&ours).context(about)?;
        let name = ptsname(&ours, Vec::new()).context(about)?;
        let name = OsStr::from_bytes(name.as_bytes()).to_owned();
        let theirs = OpenOptions::new().read(true).write(true).open(name).context(about)?;
        let child = command
            .stdin(theirs.try_clone().context(about)?)
            .stdout(theirs.try_clone().context(about)?)
            .stderr(theirs)
            .spawn()
            .context(|| "cannot run the program".to_owned())?;
        // The command holds its end of the terminal open, too, which would never end then.
        command.stdin(std::process::Stdio::null());
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        let keyboard = File::from(ours);
        let mut screen = keyboard.try_clone().context(about)?;
        let (sender, said) = channel();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // It fails when the program, and all that it started, have left.
            while let Ok(count @ 1..) = screen.read(&mut bytes) {
                let part = bytes.get(..count).unwrap_or_default().to_vec();
                if sender.send(part).is_err() {
                    break;
                }
            }
        });
        Ok(Self { child, keyboard, said, screen: String::new(), read: 0 })
    }

    /// Waits until this text appears behind what was waited for before, and answers with a line.
    pub fn answer(&mut self, question: &str, line: &str) -> Result<()> {
        self.wait_for(question)?;
        self.keyboard.write_all(format!("{line}\n").as_bytes()).context(|| "cannot type".to_owned())
    }

    /// Waits until this text appears behind what was waited for before.
    pub fn wait_for(&mut self, text: &str) -> Result<()> {
        let begin = Instant::now();
        loop {
            let new = self.screen.get(self.read..).unwrap_or_default();
            if let Some(found) = new.find(text) {
                self.read += found + text.len();
                return Ok(());
            }
            match self.said.recv_timeout(PATIENCE.saturating_sub(begin.elapsed())) {
                Ok(bytes) => self.show(&bytes),
                Err(_) => {
                    return Err(Failure::new(format!(
                        "`{text}` does not appear on the terminal:\n{}",
                        self.screen
                    )));
                }
            }
        }
    }

    /// Waits for the end; the exit code, and everything that was on the screen.
    pub fn finish(mut self) -> Result<(i32, String)> {
        loop {
            match self.said.recv_timeout(PATIENCE) {
                Ok(bytes) => self.show(&bytes),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    return Err(Failure::new(format!("no end in sight:\n{}", self.screen)));
                }
            }
        }
        let status = self.child.wait().context(|| "cannot wait for the program".to_owned())?;
        Ok((status.code().unwrap_or(-1), self.screen.clone()))
    }

    /// Notes what was said, without colours, and with ordinary ends of lines.
    fn show(&mut self, bytes: &[u8]) {
        let mut in_sequence = false;
        for c in String::from_utf8_lossy(bytes).chars() {
            match c {
                '\x1b' => in_sequence = true,
                c if in_sequence => in_sequence = !c.is_ascii_alphabetic(),
                '\r' => {}
                c => self.screen.push(c),
            }
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
