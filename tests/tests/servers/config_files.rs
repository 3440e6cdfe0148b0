//! Configuration files outside of the data directory, kept as far as the role may read them.

use std::fs;
use std::path::Path;
use std::process::Command;

use walrecv_tests::run::{ScenarioResult, Scenarios};
use walrecv_tests::{Cluster, Installation, program, tools};

use crate::site::Site;

pub(crate) fn register(scenarios: Scenarios) -> Scenarios {
    scenarios.per_major("config_files", &[11, 18], config_files)
}

fn config_files(installation: &Installation) -> ScenarioResult {
    let mut cluster = Cluster::options(installation).create()?;
    let etc = cluster.new_directory("etc 'here'")?;
    let outside = etc.join("pg_hba.conf");
    fs::copy(cluster.data_directory().join("pg_hba.conf"), &outside)?;
    program::run(Command::new("chown").arg("-R").arg(&cluster.account().name).arg(&etc))?;
    cluster.set("hba_file", &outside.display().to_string());
    cluster.start()?;
    let site = Site::around(cluster)?;
    let _daemon = site.run()?;
    let kept = |id: &str| -> walrecv_tests::Result<serde_json::Value> {
        Ok(site.shown(id)?["results"][0]["config_files"].clone())
    };

    // Nobody tells us.
    let id = site.backup()?;
    assert_eq!(kept(&id)?, serde_json::Value::Null);
    // That there is one, but not what is in it.
    site.cluster.execute("GRANT pg_read_all_settings TO walrecv")?;
    let id = site.backup()?;
    assert_eq!(kept(&id)?["closed"][0], outside.display().to_string());
    let shown = site.walrecv.run(&["show-backup", "main", &id])?.success()?.stdout;
    assert!(shown.contains("Not readable"), "{shown}");
    // All of it.
    site.cluster.execute("GRANT pg_read_server_files TO walrecv")?;
    site.cluster.execute(
        "GRANT EXECUTE ON FUNCTION pg_read_binary_file(text, bigint, bigint) TO walrecv",
    )?;
    let id = site.backup()?;
    assert_eq!(kept(&id)?["files"][0], outside.display().to_string());
    let archive = site.walrecv.home().join("main/base").join(&id).join("config.tar.zst");
    let unpacked = site.cluster.new_directory("unpacked")?;
    tools::unpack(&archive, &unpacked)?;
    let copy = unpacked.join(outside.strip_prefix(Path::new("/"))?);
    assert_eq!(fs::read(copy)?, fs::read(&outside)?);

    site.walrecv.run(&["verify-backup", "main", &id])?.success()?;
    let mut content = fs::read(&archive)?;
    content[20] ^= 1;
    fs::write(&archive, content)?;
    for option in [&[][..], &["--stored"]] {
        let said =
            site.walrecv.run(&[&["verify-backup", "main", &id], option].concat())?.code(1)?;
        assert!(said.stdout.contains("config.tar.zst"), "{}", said.stdout);
    }
    Ok(())
}
