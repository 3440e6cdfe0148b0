//! What processes cost, according to `/proc`.

use std::fs;

use rustix::param::clock_ticks_per_second;
use walrecv_tests::processes::{descendants, stat};

/// A process and all below it.
pub(super) fn tree(pid: i32) -> Vec<i32> {
    let mut tree = vec![pid];
    tree.extend(descendants(pid));
    tree
}

/// Seconds of CPU of these processes and the children that they have waited for. One that has ended
/// counts until it is waited for.
pub(super) fn cpu_seconds(processes: &[i32]) -> f64 {
    let ticks: f64 = processes.iter().filter_map(|pid| stat(*pid)).map(|stat| ticks(&stat)).sum();
    ticks / clock_ticks_per_second() as f64
}

/// User and system time of the process, and of its children: the fields 14 to 17 of all.
fn ticks(stat: &[String]) -> f64 {
    stat.iter().skip(11).take(4).filter_map(|field| field.parse::<f64>().ok()).sum()
}

/// The most memory that one process has ever had resident, in KiB.
pub(super) fn peak_rss_kib(pid: i32) -> Option<u64> {
    kib(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?, "VmHWM:")
}

/// The memory of these processes in KiB, what they share counted once.
pub(super) fn pss_kib(processes: &[i32]) -> u64 {
    let rollups = processes.iter().map(|pid| format!("/proc/{pid}/smaps_rollup"));
    let rollups = rollups.filter_map(|path| fs::read_to_string(path).ok());
    rollups.filter_map(|rollup| kib(&rollup, "Pss:")).sum()
}

fn kib(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_four_times_of_a_process_are_added() {
        let stat = "S 1 2 3 4 5 6 7 8 9 10 100 20 3 4 15 16".split(' ');
        let stat: Vec<String> = stat.map(str::to_owned).collect();
        assert_eq!(ticks(&stat), 127.0);
    }

    #[test]
    fn sizes_are_found_by_name() {
        let text = "Rss:  5608 kB\nPss_Dirty:  12 kB\nPss:                2270 kB\n";
        assert_eq!(kib(text, "Pss:"), Some(2270));
        assert_eq!(kib(text, "VmHWM:"), None);
    }

    #[test]
    fn our_own_cost_is_known() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(peak_rss_kib(own).unwrap() > 500);
        assert!(pss_kib(&tree(own)) > 500);
    }
}
