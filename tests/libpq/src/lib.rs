//! libpq's own reading of connection strings, as a judge of ours.
//!
//! libpq is loaded at run time, because it is there on some machines only, and in many versions.
//! All of its functions that are called here are declared in `libpq-fe.h`.

use std::ffi::{CStr, CString, OsStr, c_char, c_int};
use std::ptr::null_mut;

use libloading::Library;

/// `PQconninfoOption`.
#[repr(C)]
struct ConninfoOption {
    keyword: *const c_char,
    envvar: *const c_char,
    _compiled: *const c_char,
    val: *const c_char,
    _label: *const c_char,
    _dispchar: *const c_char,
    _dispsize: c_int,
}

type LibVersion = unsafe extern "C" fn() -> c_int;
type ConninfoParse = unsafe extern "C" fn(*const c_char, *mut *mut c_char) -> *mut ConninfoOption;
type ConninfoFree = unsafe extern "C" fn(*mut ConninfoOption);
type FreeMem = unsafe extern "C" fn(*mut std::ffi::c_void);

/// A libpq that is loaded.
pub struct Libpq {
    version: i32,
    parse: ConninfoParse,
    free: ConninfoFree,
    free_mem: FreeMem,
    // What the functions are in.
    _library: Library,
}

impl Libpq {
    /// Loads the first of these libraries that there is; `None` if there is none. A plain
    /// `libpq.so.5` stands for the system's.
    pub fn first_of<P: AsRef<OsStr>>(paths: impl IntoIterator<Item = P>) -> Option<Self> {
        paths.into_iter().find_map(|path| Self::open(path.as_ref()))
    }

    fn open(path: &OsStr) -> Option<Self> {
        // SAFETY: The initialisers of libpq and of what it links to ask for nothing.
        let library = unsafe { Library::new(path) }.ok()?;
        // SAFETY: The types are those of the declarations in `libpq-fe.h`, which have not changed
        // since PostgreSQL 9.0. The functions are not used after the library, which is dropped with
        // them.
        let (version, parse, free, free_mem) = unsafe {
            (
                *library.get::<LibVersion>(b"PQlibVersion\0").ok()?,
                *library.get::<ConninfoParse>(b"PQconninfoParse\0").ok()?,
                *library.get::<ConninfoFree>(b"PQconninfoFree\0").ok()?,
                *library.get::<FreeMem>(b"PQfreemem\0").ok()?,
            )
        };
        // SAFETY: It has no conditions.
        let version = unsafe { version() };
        Some(Self { version, parse, free, free_mem, _library: library })
    }

    /// The major version, such as 18.
    pub fn major(&self) -> i32 {
        self.version / 10_000
    }

    /// The options that a connection string sets, by `PQconninfoParse`, in libpq's order.
    ///
    /// # Errors
    /// What libpq says about the string; or that it cannot be given to libpq because of a NUL in
    /// it, or that a value is not UTF-8 any more after percent-decoding.
    pub fn conninfo_parse(&self, text: &str) -> Result<Vec<(String, String)>, String> {
        let mut set = Vec::new();
        self.each_option(text, |option| {
            // SAFETY: Both are NUL-terminated strings or null, and live until `each_option` frees
            // them.
            let (keyword, value) = unsafe { (string(option.keyword), string(option.val)) };
            if let (Some(keyword), Some(value)) = (keyword, value) {
                set.push((keyword?, value?));
            }
            Ok(())
        })?;
        Ok(set)
    }

    /// Every keyword that libpq knows, with the environment variable that sets it.
    ///
    /// # Errors
    /// Never with a libpq that works.
    pub fn keywords(&self) -> Result<Vec<(String, Option<String>)>, String> {
        let mut known = Vec::new();
        self.each_option("", |option| {
            // SAFETY: As above.
            let (keyword, variable) = unsafe { (string(option.keyword), string(option.envvar)) };
            if let Some(keyword) = keyword {
                known.push((keyword?, variable.transpose()?));
            }
            Ok(())
        })?;
        Ok(known)
    }

    /// Parses a string, and shows every option.
    fn each_option(
        &self,
        text: &str,
        mut show: impl FnMut(&ConninfoOption) -> Result<(), String>,
    ) -> Result<(), String> {
        let text = CString::new(text).map_err(|_| "it contains a NUL".to_owned())?;
        let mut message = null_mut();
        // SAFETY: The text is NUL-terminated and outlives the call; the message is ours to free.
        let options = unsafe { (self.parse)(text.as_ptr(), &mut message) };
        if options.is_null() {
            // SAFETY: libpq has set it to null or to a NUL-terminated string of its own.
            let said = unsafe { string(message) };
            // SAFETY: It came from libpq, is freed once, and null is allowed.
            unsafe { (self.free_mem)(message.cast()) };
            return Err(said.unwrap_or_else(|| Ok("out of memory".to_owned()))?);
        }
        let mut outcome = Ok(());
        for index in 0.. {
            // SAFETY: The array ends with an option whose keyword is null, and goes on until then.
            let option = unsafe { &*options.add(index) };
            if option.keyword.is_null() || outcome.is_err() {
                break;
            }
            outcome = show(option);
        }
        // SAFETY: It came from libpq, and nothing of it is used any more.
        unsafe { (self.free)(options) };
        outcome
    }
}

/// A copy of a C string, unless it is null.
///
/// # Safety
/// It must be null or point to a NUL-terminated string.
unsafe fn string(text: *const c_char) -> Option<Result<String, String>> {
    if text.is_null() {
        return None;
    }
    // SAFETY: By this function's own condition.
    let text = unsafe { CStr::from_ptr(text) };
    Some(text.to_str().map(str::to_owned).map_err(|_| "it is not UTF-8".to_owned()))
}
