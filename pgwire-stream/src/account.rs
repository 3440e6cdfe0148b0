//! The operating system's accounts, as far as `/etc/passwd` knows them.

use std::fs;

/// The name of the account that this process acts for.
pub(crate) fn effective_user() -> Option<String> {
    name_of(effective_uid()?)
}

/// The name of an account.
pub(crate) fn name_of(uid: u32) -> Option<String> {
    let accounts = fs::read("/etc/passwd").ok()?;
    listed(&String::from_utf8_lossy(&accounts), uid)
}

#[cfg(target_os = "linux")]
fn effective_uid() -> Option<u32> {
    use std::os::unix::fs::MetadataExt;

    // The directory belongs to the process's effective user.
    Some(fs::metadata("/proc/self").ok()?.uid())
}

#[cfg(not(target_os = "linux"))]
fn effective_uid() -> Option<u32> {
    None
}

/// The name on the line of this account.
fn listed(accounts: &str, uid: u32) -> Option<String> {
    accounts.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_found_by_number() {
        let accounts =
            "root:x:0:0:root:/root:/bin/bash\n\nbad\npostgres:x:107:113::/var/lib:/bin/sh\n";
        assert_eq!(listed(accounts, 0).as_deref(), Some("root"));
        assert_eq!(listed(accounts, 107).as_deref(), Some("postgres"));
        assert_eq!(listed(accounts, 113), None);
    }
}
