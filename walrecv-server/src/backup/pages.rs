//! The checksums of pages, computed while their files pass by.

use std::fmt;

use pgwire_stream::Lsn;
use pgwire_stream::page::{Page, PageFile};

/// The largest page that a server can be built with.
const MAX_PAGE: usize = 32 << 10;

/// A page that does not match its own checksum: it was damaged before it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedPage {
    /// The file, below the data directory.
    pub path: String,
    /// The number of its block within the relation.
    pub block: u32,
    /// The checksum of the page.
    pub computed: u16,
    /// The checksum in the page.
    pub noted: u16,
}

impl fmt::Display for DamagedPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, block, computed, noted } = self;
        write!(
            f,
            "page {block} of `{path}` does not match its own checksum: {computed} instead of {noted}"
        )
    }
}

/// The pages of one file.
#[derive(Debug)]
pub(crate) struct Pages {
    path: String,
    file: PageFile,
    /// Pages that changed since the backup began may have been copied half; recovery writes them
    /// anew.
    begin: Lsn,
    page: Vec<u8>,
    /// How large pages are, which the first that is not empty says.
    size: Option<usize>,
    block: u32,
    checked: u64,
}

impl Pages {
    /// The pages of a file; `None` if it has none.
    pub(crate) fn of(path: &[u8], begin: Lsn) -> Option<Self> {
        let path = std::str::from_utf8(path).ok()?;
        let file = PageFile::of(path)?;
        let path = path.to_owned();
        Some(Self { path, file, begin, page: Vec::new(), size: None, block: 0, checked: 0 })
    }

    /// Takes what follows in the file.
    pub(crate) fn feed(&mut self, mut content: &[u8], tell: &mut impl FnMut(DamagedPage)) {
        while !content.is_empty() {
            let wanted = self.size.unwrap_or(Page::HEADER) - self.page.len();
            let (taken, rest) = content.split_at(wanted.min(content.len()));
            self.page.extend_from_slice(taken);
            content = rest;
            if self.page.len() < self.size.unwrap_or(Page::HEADER) {
                return;
            }
            match self.size {
                Some(_) => self.check(tell),
                None => {
                    let size = Page::stated_size(&self.page).unwrap_or(Page::DEFAULT_SIZE);
                    self.size = Some(size.min(MAX_PAGE));
                }
            }
        }
    }

    fn check(&mut self, tell: &mut impl FnMut(DamagedPage)) {
        let page = Page::new(&self.page);
        let size = self.size.unwrap_or(Page::DEFAULT_SIZE);
        let block = self.file.first_block(size).saturating_add(self.block);
        if !page.is_new() && page.lsn() < self.begin {
            self.checked += 1;
            let (computed, noted) = (page.checksum(block), page.noted_checksum());
            if computed != noted {
                tell(DamagedPage { path: self.path.clone(), block, computed, noted });
            }
        }
        self.block = self.block.saturating_add(1);
        self.page.clear();
    }

    /// How many pages were compared with their checksums.
    pub(crate) fn checked(&self) -> u64 {
        self.checked
    }
}
