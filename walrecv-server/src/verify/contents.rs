//! The files in the archives, compared with the manifest.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use pgwire_stream::manifest::{FileHasher, ManifestFile};

use super::index::IndexReader;
use super::stored::Summing;
use super::{Depth, Problem, Search, VerifyError};
use crate::backup::pages::Pages;
use crate::catalog::{Archive, ManifestFiles, ManifestFilesError, read_archive};
use crate::failure::in_one_line;
use crate::storage::tar::{Member, MemberKind, TarEvent, TarReader};
use crate::storage::{Codec, encryption};

/// How often the manifest is searched for a file that is not where it should be.
const SEARCHES: u32 = 100;

/// The files that are still to come, as far as the manifest can be read.
struct Listing {
    path: PathBuf,
    files: Option<ManifestFiles>,
    ahead: VecDeque<ManifestFile>,
    searches: u32,
    /// Whether all of it was read, and it is what the server wrote.
    ended: bool,
}

impl Listing {
    fn open(path: &Path, tell: &mut impl FnMut(Problem)) -> Self {
        let mut listing = Self {
            path: path.to_owned(),
            files: None,
            ahead: VecDeque::new(),
            searches: SEARCHES,
            ended: false,
        };
        match ManifestFiles::open(path) {
            Ok(files) => listing.files = Some(files),
            Err(error) => listing.give_up(&ManifestFilesError::Storage(error), tell),
        }
        listing
    }

    /// Nothing can be compared any more.
    fn give_up(&mut self, error: &ManifestFilesError, tell: &mut impl FnMut(Problem)) {
        self.files = None;
        self.ahead.clear();
        tell(Problem::Manifest { file: self.path.clone(), error: in_one_line(error) });
    }

    /// The next file, which stays the next.
    fn peek(&mut self, tell: &mut impl FnMut(Problem)) -> Option<&ManifestFile> {
        if self.ahead.is_empty()
            && let Some(files) = &mut self.files
        {
            match files.next_file() {
                Ok(file) => self.ahead.extend(file),
                Err(error) => self.give_up(&error, tell),
            }
        }
        self.ahead.front()
    }

    /// What is listed for the next file of an archive, if anything is. What is listed before it is
    /// missing.
    fn take(&mut self, path: &[u8], tell: &mut impl FnMut(Problem)) -> Option<ManifestFile> {
        match self.peek(tell) {
            Some(file) if file.path == path => return self.ahead.pop_front(),
            Some(_) => {}
            None => {
                // The first file too many tells whether the manifest is all there.
                if let Some(files) = self.files.take() {
                    match files.finish() {
                        Ok(()) => self.ended = true,
                        Err(error) => self.give_up(&error, tell),
                    }
                }
                if self.ended {
                    tell(Problem::FileExtra { path: shown(path) });
                }
                return None;
            }
        }
        if !self.is_listed(path) {
            tell(Problem::FileExtra { path: shown(path) });
            return None;
        }
        while let Some(file) = self.peek(tell) {
            let is_it = file.path == path;
            let file = self.ahead.pop_front()?;
            if is_it {
                return Some(file);
            }
            tell(Problem::FileMissing { path: shown(&file.path) });
        }
        None
    }

    /// Whether the manifest has this file anywhere.
    fn is_listed(&mut self, path: &[u8]) -> bool {
        let Some(searches) = self.searches.checked_sub(1) else { return false };
        self.searches = searches;
        let Ok(mut files) = ManifestFiles::open(&self.path) else { return false };
        while let Ok(Some(file)) = files.next_file() {
            if file.path == path {
                return true;
            }
        }
        false
    }

    /// The files of an archive are over: those that are left are missing, unless nobody knows
    /// what else was in it.
    fn end(
        &mut self,
        belongs: impl Fn(&[u8]) -> bool,
        unknown: bool,
        tell: &mut impl FnMut(Problem),
    ) {
        while let Some(file) = self.peek(tell) {
            if !belongs(&file.path) {
                return;
            }
            let path = shown(&file.path);
            self.ahead.pop_front();
            if !unknown {
                tell(Problem::FileMissing { path });
            }
        }
    }

    /// Whether the manifest is what the server wrote.
    fn finish(mut self, tell: &mut impl FnMut(Problem)) {
        self.end(|_| true, false, tell);
        if let Some(files) = self.files.take()
            && let Err(error) = files.finish()
        {
            self.give_up(&error, tell);
        }
    }
}

/// One archive while it is looked at.
struct Unpacking<'l> {
    listing: &'l mut Listing,
    /// What the paths of the archive are below, in the data directory.
    prefix: String,
    index: Option<IndexReader>,
    open: Option<Open>,
    files: u64,
    bytes: u64,
    pages: u64,
}

/// The file that is passing by.
struct Open {
    path: Vec<u8>,
    expected: Option<ManifestFile>,
    hasher: Option<FileHasher>,
    pages: Option<Pages>,
}

impl Search<'_> {
    /// Unpacks every archive, and compares what is in it.
    pub(super) fn contents(&mut self) -> Result<(), VerifyError> {
        let manifest = self.backup.manifest();
        let mut listing = Listing::open(&manifest, &mut |problem| self.tell(problem));
        for archive in &self.request.record.archives {
            self.archive(archive, &mut listing)?;
        }
        listing.finish(&mut |problem| self.tell(problem));
        Ok(())
    }

    fn archive(&mut self, archive: &Archive, listing: &mut Listing) -> Result<(), VerifyError> {
        let path = self.backup.archive(&archive.name, archive.form());
        let prefix = archive.prefix();
        let unpacked = self.unpack(archive, &path, &prefix, listing)?;
        let others: Vec<String> = self
            .request
            .record
            .archives
            .iter()
            .filter(|other| other.name != archive.name)
            .map(Archive::prefix)
            .filter(|other| !other.is_empty())
            .collect();
        let belongs = |path: &[u8]| {
            path.starts_with(prefix.as_bytes())
                && !(prefix.is_empty()
                    && others.iter().any(|other| path.starts_with(other.as_bytes())))
        };
        listing.end(belongs, !unpacked, &mut |problem| self.tell(problem));
        Ok(())
    }

    /// Whether an archive could be unpacked to its end.
    fn unpack(
        &mut self,
        archive: &Archive,
        path: &Path,
        prefix: &str,
        listing: &mut Listing,
    ) -> Result<bool, VerifyError> {
        let noted = archive.fingerprint();
        let Some(file) = self.open(path) else { return Ok(false) };
        let length = file.metadata().map(|metadata| metadata.len()).unwrap_or(archive.stored_size);
        let (file, sum) = Summing::new(file, noted, self.request.pace.clone());
        let keys = self.request.keys.as_ref();
        let compressed = match encryption::compressed(path, file, archive.form(), keys) {
            Ok(compressed) => compressed,
            Err(error) if error.is_for_want_of_keys() => {
                // Damage at its beginning looks like another key.
                let before = self.found.problems.clone();
                self.read_through(path, noted, |_| {})?;
                return if self.found.problems == before { Err(error.into()) } else { Ok(false) };
            }
            Err(error) => {
                let (file, error) = (path.to_owned(), in_one_line(&error));
                self.tell(Problem::Archive { file, at: 0, inside: None, error });
                return Ok(false);
            }
        };
        let mut unpacking = Unpacking {
            listing,
            prefix: prefix.to_owned(),
            index: self.index_of(archive),
            open: None,
            files: 0,
            bytes: 0,
            pages: 0,
        };
        let mut tar = TarReader::new();
        let (backup, workers) = (self.backup.clone(), self.request.jobs);
        let outcome = read_archive(&backup, archive, compressed, workers, |pieces| {
            for piece in pieces {
                self.check_interruption()?;
                let piece = match piece {
                    Ok(piece) => piece,
                    Err(error) => return Ok(Err(in_one_line(&error))),
                };
                let mut bytes = &piece[..];
                loop {
                    match tar.feed(&mut bytes) {
                        Ok(Some(event)) => unpacking.take(event, self),
                        Ok(None) => break,
                        Err(error) => return Ok(Err(in_one_line(&error))),
                    }
                }
                self.progress.advance_to(self.done + sum.size());
            }
            Ok::<_, VerifyError>(Ok(()))
        })??;
        let at = tar.position();
        let outcome = match outcome {
            Ok(()) => tar.finish().map(drop).map_err(|error| in_one_line(&error)),
            error => error,
        };
        let Unpacking { index, open, files, bytes, pages, .. } = unpacking;
        self.found.files += files;
        self.found.bytes += bytes;
        self.found.pages = self.found.pages.map(|sum| sum + pages);
        if let Err(error) = outcome {
            let inside = open.map(|open| shown(&open.path));
            let file = path.to_owned();
            if length != archive.stored_size {
                let (file, expected) = (file.clone(), archive.stored_size);
                self.tell(Problem::StoredSize { file, found: length, expected });
            }
            self.tell(Problem::Archive { file, at, inside, error });
            self.done += sum.size();
            return Ok(false);
        }
        if length != archive.stored_size && sum.size() == archive.stored_size {
            // More than its codec reads.
            let file = path.to_owned();
            self.tell(Problem::StoredSize { file, found: length, expected: archive.stored_size });
        }
        self.compare(path, &sum, noted);
        self.demand_fingerprint(archive);
        if let Some(index) = index {
            let file = index.path().to_owned();
            // Where the last part of a gzip file ends is not where the file does.
            let known = !archive.encrypted && archive.codec != Codec::Gzip;
            if let Err(what) = index.finish(at, known.then_some(archive.stored_size)) {
                self.tell(Problem::Index { file, what });
            }
        }
        Ok(true)
    }

    fn index_of(&mut self, archive: &Archive) -> Option<IndexReader> {
        let path = self.backup.archive_index(&archive.name);
        match IndexReader::open(&path) {
            Ok(index) => Some(index),
            // That it is not there has been told.
            Err(_) if !path.exists() => None,
            Err(what) => {
                self.tell(Problem::Index { file: path, what });
                None
            }
        }
    }
}

impl Unpacking<'_> {
    fn take(&mut self, event: TarEvent<'_>, search: &mut Search<'_>) {
        match event {
            TarEvent::Member(member) => {
                self.compare_with_index(&member, search);
                if member.kind == MemberKind::File {
                    self.begin(&member, search);
                }
            }
            TarEvent::Content(content) => {
                let Some(open) = &mut self.open else { return };
                self.bytes += content.len() as u64;
                if let Some(hasher) = &mut open.hasher {
                    hasher.update(content);
                }
                if let Some(pages) = &mut open.pages {
                    pages.feed(content, &mut |page| search.tell(Problem::Page(page)));
                }
            }
            TarEvent::MemberEnd => {
                if let Some(open) = self.open.take() {
                    self.end(open, search);
                }
            }
        }
    }

    fn compare_with_index(&mut self, member: &Member, search: &mut Search<'_>) {
        let Some(index) = &mut self.index else { return };
        if let Err(what) = index.member(member) {
            search.tell(Problem::Index { file: index.path().to_owned(), what });
            self.index = None;
        }
    }

    fn begin(&mut self, member: &Member, search: &mut Search<'_>) {
        let path = [self.prefix.as_bytes(), &member.path].concat();
        let expected = self.listing.take(&path, &mut |problem| search.tell(problem));
        if let Some(expected) = expected.as_ref().filter(|file| file.size != member.size) {
            let (found, expected) = (member.size, expected.size);
            search.tell(Problem::FileSize { path: shown(&path), found, expected });
        }
        let checksum = expected.as_ref().and_then(|file| file.checksum.as_ref());
        let hasher = checksum.map(|(algorithm, _)| algorithm.hasher());
        let begin = search.request.record.begin.map(|begin| begin.lsn);
        let pages = match (search.request.depth, search.found.pages, begin) {
            (Depth::Pages, Some(_), Some(begin)) => Pages::of(&path, begin),
            _ => None,
        };
        self.open = Some(Open { path, expected, hasher, pages });
    }

    fn end(&mut self, open: Open, search: &mut Search<'_>) {
        self.files += 1;
        self.pages += open.pages.as_ref().map_or(0, Pages::checked);
        let listed = open.expected.and_then(|file| file.checksum);
        if let (Some((algorithm, digest)), Some(hasher)) = (listed, open.hasher)
            && hasher.finish() != digest
        {
            search.tell(Problem::FileChecksum { path: shown(&open.path), algorithm });
        }
    }
}

fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}
