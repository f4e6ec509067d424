// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The monitor's file: any text.

use capstream_config::Deployment;

/// Reads `bytes` as a file, if they are text.
pub fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let read = Deployment::from_str(text, "folder/file.yaml");
    let again = Deployment::from_str(text, "folder/file.yaml");
    match (&read, &again) {
        (Ok(deployment), Ok(again)) => {
            assert_eq!(format!("{deployment:?}"), format!("{again:?}"));
            check(deployment);
        }
        (Err(error), Err(again)) => {
            let message = error.to_string();
            assert_eq!(message, again.to_string());
            assert!(message.starts_with("folder/file.yaml"), "{message}");
            // YAML has more kinds of line breaks than this, but none that the parser counts twice.
            let lines = text.split(['\n', '\r']).count();
            if let Some(line) = error.line() {
                assert!(
                    (1..=lines + 1).contains(&line),
                    "{line} of {lines}: {message}"
                );
            }
        }
        _ => panic!("{read:?} became {again:?}"),
    }
}

/// That what was accepted can be used.
fn check(deployment: &Deployment) {
    let mut names = std::collections::HashSet::new();
    for cvm in &deployment.cvms {
        assert!(names.insert(&cvm.name), "two cVMs are called {}", cvm.name);
        let Some(isolation) = &cvm.isolation else {
            continue;
        };
        let (begin, end) = isolation.bounds();
        let top = isolation.base.checked_add(isolation.size).unwrap();
        assert!(isolation.base <= begin && begin <= end && end <= top);
    }
}
