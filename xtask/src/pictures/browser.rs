//! A browser that is told what to do through two pipes: the protocol of Chromium's own tools.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use walrecv_tests::{Context, Result};

/// A page in it. Dropping it ends the browser.
pub(super) struct Browser {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    session: Option<String>,
    asked: u64,
}

impl Browser {
    /// Starts Chromium with an empty profile, and letters such as many systems have.
    pub(super) fn open(profile: &Path) -> Result<Self> {
        let fonts = profile.join("fontconfig");
        std::fs::create_dir_all(&fonts)
            .and_then(|()| std::fs::write(fonts.join("fonts.conf"), FONTS))
            .context(|| format!("cannot write {}", fonts.display()))?;
        let mut child = Command::new("sh")
            .args(["-c", "exec chromium \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1", "sh"])
            .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
            .args(["--hide-scrollbars", "--remote-debugging-pipe", "about:blank"])
            .arg(format!("--user-data-dir={}", profile.display()))
            .env("XDG_CONFIG_HOME", profile)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context(|| "cannot run chromium".to_owned())?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (to, from) = pipes.context(|| "no pipes to chromium".to_owned())?;
        let mut browser = Self { child, to, from: BufReader::new(from), session: None, asked: 0 };
        let target = browser.ask("Target.createTarget", json!({ "url": "about:blank" }))?;
        let attach = json!({ "targetId": target.get("targetId"), "flatten": true });
        let attached = browser.ask("Target.attachToTarget", attach)?;
        browser.session = attached.get("sessionId").and_then(Value::as_str).map(str::to_owned);
        Ok(browser)
    }

    /// Goes to a page.
    pub(super) fn go(&mut self, url: &str) -> Result<()> {
        self.ask("Emulation.setTimezoneOverride", json!({ "timezoneId": "UTC" }))?;
        self.ask("Page.navigate", json!({ "url": url })).map(drop)
    }

    /// A picture of the page as it is, so many points wide and high (as high as it is, without),
    /// twice as fine.
    pub(super) fn picture(
        &mut self,
        width: u32,
        height: Option<u32>,
        dark: bool,
    ) -> Result<Vec<u8>> {
        let scheme = if dark { "dark" } else { "light" };
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.ask("Emulation.setEmulatedMedia", json!({ "features": features }))?;
        self.resize(width, 800)?;
        let height = match height {
            Some(height) => height,
            None => {
                let expression = json!({ "expression": "document.documentElement.offsetHeight" });
                let measured = self.ask("Runtime.evaluate", expression)?;
                measured
                    .pointer("/result/value")
                    .and_then(Value::as_u64)
                    .and_then(|height| height.try_into().ok())
                    .context(|| format!("the page has no height: {measured}"))?
            }
        };
        self.resize(width, height)?;
        let shot = self.ask("Page.captureScreenshot", json!({ "format": "png" }))?;
        let data = shot.get("data").and_then(Value::as_str).context(|| "no picture".to_owned())?;
        STANDARD.decode(data).context(|| "no picture".to_owned())
    }

    fn resize(&mut self, width: u32, height: u32) -> Result<()> {
        let metrics =
            json!({ "width": width, "height": height, "deviceScaleFactor": 2, "mobile": false });
        self.ask("Emulation.setDeviceMetricsOverride", metrics)?;
        // The page draws itself anew.
        std::thread::sleep(std::time::Duration::from_millis(700));
        Ok(())
    }

    /// Asks, and waits for the answer.
    fn ask(&mut self, method: &str, params: Value) -> Result<Value> {
        self.asked += 1;
        let mut question = json!({ "id": self.asked, "method": method, "params": params });
        if let (Some(session), Some(question)) = (&self.session, question.as_object_mut()) {
            question.insert("sessionId".to_owned(), json!(session));
        }
        let about = || format!("chromium does not listen to {method}");
        self.to.write_all(format!("{question}\0").as_bytes()).context(about)?;
        loop {
            let mut answer = Vec::new();
            self.from.read_until(0, &mut answer).context(about)?;
            answer.pop();
            let answer: Value = serde_json::from_slice(&answer).context(about)?;
            // What happens meanwhile is told in between.
            if answer.get("id") == Some(&json!(self.asked)) {
                return answer
                    .get("result")
                    .cloned()
                    .context(|| format!("chromium refuses {method}: {answer}"));
            }
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.ask("Browser.close", json!({}));
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Inter, where it is installed, instead of what happens to be there.
const FONTS: &str = r#"<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "urn:fontconfig:fonts.dtd">
<fontconfig>
  <match><test name="family"><string>system-ui</string></test>
    <edit name="family" mode="prepend" binding="strong"><string>Inter</string></edit></match>
  <match><test name="family"><string>sans-serif</string></test>
    <edit name="family" mode="prepend" binding="strong"><string>Inter</string></edit></match>
</fontconfig>
"#;
