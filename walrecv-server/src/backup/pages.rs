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
    /// How large pages are, once one has proved it.
    size: Option<usize>,
    /// How large the page is that is being gathered, as it says itself.
    stated: Option<usize>,
    /// Where in the file it begins.
    at: u64,
    checked: u64,
}

impl Pages {
    /// The pages of a file; `None` if it has none.
    pub(crate) fn of(path: &[u8], begin: Lsn) -> Option<Self> {
        let path = std::str::from_utf8(path).ok()?;
        let file = PageFile::of(path)?;
        let (path, page) = (path.to_owned(), Vec::new());
        Some(Self { path, file, begin, page, size: None, stated: None, at: 0, checked: 0 })
    }

    /// Takes what follows in the file.
    pub(crate) fn feed(&mut self, mut content: &[u8], tell: &mut impl FnMut(DamagedPage)) {
        while !content.is_empty() {
            let wanted = self.size.or(self.stated).unwrap_or(Page::HEADER);
            let (taken, rest) = content.split_at((wanted - self.page.len()).min(content.len()));
            self.page.extend_from_slice(taken);
            content = rest;
            if self.page.len() < wanted {
                return;
            }
            if self.size.or(self.stated).is_none() {
                let stated = Page::stated_size(&self.page).filter(|size| *size <= MAX_PAGE);
                self.stated = Some(stated.unwrap_or(Page::DEFAULT_SIZE));
            } else {
                self.check(tell);
            }
        }
    }

    fn check(&mut self, tell: &mut impl FnMut(DamagedPage)) {
        let page = Page::new(&self.page);
        let size = self.page.len();
        let before = u32::try_from(self.at / size as u64).unwrap_or(u32::MAX);
        let block = self.file.first_block(size).saturating_add(before);
        if !page.is_new() && page.lsn() < self.begin {
            self.checked += 1;
            let (computed, noted) = (page.checksum(block), page.noted_checksum());
            if computed == noted {
                self.size = Some(size);
            } else {
                tell(DamagedPage { path: self.path.clone(), block, computed, noted });
            }
        }
        self.at += size as u64;
        self.page.clear();
        self.stated = None;
    }

    /// How many pages were compared with their checksums.
    pub(crate) fn checked(&self) -> u64 {
        self.checked
    }
}
