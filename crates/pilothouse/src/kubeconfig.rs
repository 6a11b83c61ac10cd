//! Kubeconfig files: writing the cluster's own, and merging it into the person's with a backup.

use crate::pki::write_atomically;
use anyhow::{Context, Result, bail};
use base64::Engine;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// What a kubeconfig says of one cluster and one user.
pub struct Entry<'a> {
    /// Name of the cluster and context; the user is `NAME-admin`.
    pub name: &'a str,
    pub server: String,
    pub ca_pem: &'a str,
    pub certificate_pem: &'a str,
    pub key_pem: &'a str,
}

impl Entry<'_> {
    fn user(&self) -> String {
        format!("{}-admin", self.name)
    }

    fn document(&self) -> Value {
        let base64 = |pem: &str| base64::engine::general_purpose::STANDARD.encode(pem);
        json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": self.name, "cluster": {
                "server": self.server,
                "certificate-authority-data": base64(self.ca_pem),
            }}],
            "users": [{"name": self.user(), "user": {
                "client-certificate-data": base64(self.certificate_pem),
                "client-key-data": base64(self.key_pem),
            }}],
            "contexts": [{"name": self.name, "context": {"cluster": self.name, "user": self.user()}}],
            "current-context": self.name,
        })
    }

    /// Writes a kubeconfig of this cluster alone, readable by its owner only; what he chose for its context stays.
    pub fn write(&self, path: &Path) -> Result<()> {
        if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
            fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
        }
        let mut document = self.document();
        let before = fs::read_to_string(path).ok().and_then(|text| serde_saphyr::from_str::<Value>(&text).ok());
        if let Some(mut before) = before.filter(|before| before["contexts"].is_array()) {
            upsert(&mut before, "contexts", document["contexts"][0].take())?;
            let known =
                before["contexts"].as_array().into_iter().flatten().find(|context| context["name"] == self.name);
            document["contexts"][0] = known.cloned().unwrap_or_default();
        }
        write_atomically(path, to_yaml(&document)?.as_bytes(), 0o600)
    }

    /// Adds this cluster to the person's kubeconfig and makes it the current context.
    ///
    /// Everything else in the file stays; what was there before is kept beside it as `FILE.backup`.
    ///
    /// # Errors
    /// When the file isn't a kubeconfig: it is left as it is.
    pub fn merge_into(&self, person: &Person) -> Result<()> {
        let ours = self.document();
        person.change(|mut theirs| {
            for list in ["clusters", "users", "contexts"] {
                let new = ours[list][0].clone();
                upsert(&mut theirs, list, new)?;
            }
            theirs["current-context"] = ours["current-context"].clone();
            theirs["apiVersion"] = json!("v1");
            theirs["kind"] = json!("Config");
            Ok(theirs)
        })
    }
}

/// Takes a cluster's entries out of the person's kubeconfig, where they are there.
pub fn remove_from(person: &Person, name: &str) -> Result<()> {
    if !person.file.exists() {
        return Ok(());
    }
    person.change(|mut theirs| {
        for (list, entry) in
            [("clusters", name.to_owned()), ("users", format!("{name}-admin")), ("contexts", name.to_owned())]
        {
            if let Some(entries) = theirs.get_mut(list).and_then(Value::as_array_mut) {
                entries.retain(|e| e["name"] != entry.as_str());
            }
        }
        if theirs["current-context"] == name {
            theirs["current-context"] = json!("");
        }
        Ok(theirs)
    })
}

/// The person's own kubeconfig file, and who owns it.
#[derive(Clone, Debug)]
pub struct Person {
    pub file: PathBuf,
    owner: Option<(u32, u32)>,
}

impl Person {
    /// `$KUBECONFIG` (its first file), else `~/.kube/config` of the person behind sudo, else of this user.
    pub fn find() -> Option<Self> {
        let sudo = std::env::var("SUDO_USER").ok().filter(|u| u != "root").and_then(|name| {
            nix::unistd::User::from_name(&name)
                .ok()
                .flatten()
                .map(|u| (u.dir.clone(), (u.uid.as_raw(), u.gid.as_raw())))
        });
        let owner = sudo.as_ref().map(|(_, ids)| *ids);
        if let Some(list) = std::env::var_os("KUBECONFIG") {
            let first = std::env::split_paths(&list).find(|p| !p.as_os_str().is_empty());
            if let Some(file) = first {
                return Some(Person { file, owner });
            }
        }
        let home = match sudo {
            Some((home, _)) => home,
            None => PathBuf::from(std::env::var_os("HOME").filter(|h| !h.is_empty())?),
        };
        Some(Person { file: home.join(".kube/config"), owner })
    }

    fn change(&self, change: impl FnOnce(Value) -> Result<Value>) -> Result<()> {
        // A link is followed, so that the person's file stays where they put it.
        let file = fs::canonicalize(&self.file).unwrap_or_else(|_| self.file.clone());
        let before = match fs::read_to_string(&file) {
            Ok(text) => Some(text),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
            Err(e) => return Err(e).with_context(|| format!("cannot read {}", file.display())),
        };
        let parsed = match before.as_deref().map(str::trim) {
            None | Some("") => json!({"preferences": {}}),
            Some(text) => serde_saphyr::from_str::<Value>(text)
                .with_context(|| format!("{} is not a kubeconfig; it was left as it is", file.display()))?,
        };
        if !parsed.is_object() {
            bail!("{} is not a kubeconfig; it was left as it is", file.display());
        }
        let after = to_yaml(&change(parsed)?)?;
        if before.as_deref() == Some(&after) {
            return Ok(());
        }
        if let Some(parent) = file.parent().filter(|p| !p.as_os_str().is_empty() && !p.exists()) {
            fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
            self.give(parent)?;
        }
        if let Some(before) = before {
            let mut backup = file.clone().into_os_string();
            backup.push(".backup");
            write_atomically(Path::new(&backup), before.as_bytes(), 0o600)?;
            self.give(Path::new(&backup))?;
        }
        write_atomically(&file, after.as_bytes(), 0o600)?;
        self.give(&file)
    }

    fn give(&self, path: &Path) -> Result<()> {
        if let Some((uid, gid)) = self.owner {
            std::os::unix::fs::chown(path, Some(uid), Some(gid))
                .with_context(|| format!("cannot give {} to its owner", path.display()))?;
        }
        Ok(())
    }
}

fn upsert(document: &mut Value, list: &str, entry: Value) -> Result<()> {
    if document[list].is_null() {
        document[list] = json!([]);
    }
    let Some(entries) = document[list].as_array_mut() else {
        bail!("{list:?} in the kubeconfig is not a list; the file was left as it is");
    };
    match entries.iter_mut().find(|e| e["name"] == entry["name"]) {
        // The namespace that somebody chose, and what else he put into a context, is his.
        Some(Value::Object(old)) if list == "contexts" && old["context"].is_object() => {
            let ours = entry["context"].as_object().into_iter().flatten();
            ours.for_each(|(member, value)| old["context"][member] = value.clone());
        }
        Some(old) => *old = entry,
        None => entries.push(entry),
    }
    Ok(())
}

/// A document as YAML.
pub fn to_yaml(document: &Value) -> Result<String> {
    serde_saphyr::to_string(document).context("cannot write YAML")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry<'static> {
        Entry {
            name: "pilothouse",
            server: "https://127.0.0.1:6443".into(),
            ca_pem: "CA",
            certificate_pem: "C",
            key_pem: "K",
        }
    }

    #[test]
    fn merging_keeps_what_was_there() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let person = Person { file: dir.path().join("sub/config"), owner: None };
        fs::create_dir(dir.path().join("sub"))?;
        let theirs = "apiVersion: v1\nkind: Config\nclusters:\n- name: other\n  cluster: {server: 'https://x'}\nusers: []\ncontexts: []\ncurrent-context: other\n";
        fs::write(&person.file, theirs)?;
        entry().merge_into(&person)?;
        entry().merge_into(&person)?;
        let merged: Value = serde_saphyr::from_str(&fs::read_to_string(&person.file)?)?;
        assert_eq!(merged["clusters"].as_array().map(Vec::len), Some(2));
        assert_eq!(merged["clusters"][0]["cluster"]["server"], "https://x");
        assert_eq!(merged["current-context"], "pilothouse");
        assert_eq!(fs::read_to_string(dir.path().join("sub/config.backup"))?, theirs);
        remove_from(&person, "pilothouse")?;
        let removed: Value = serde_saphyr::from_str(&fs::read_to_string(&person.file)?)?;
        assert_eq!(removed["clusters"].as_array().map(Vec::len), Some(1));
        assert_eq!(removed["users"], json!([]));
        Ok(())
    }

    #[test]
    fn a_namespace_that_was_chosen_stays() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let own = dir.path().join("admin.kubeconfig");
        let person = Person { file: dir.path().join("config"), owner: None };
        let read = |file: &Path| -> Result<Value> { Ok(serde_saphyr::from_str(&fs::read_to_string(file)?)?) };
        entry().write(&own)?;
        entry().merge_into(&person)?;
        for file in [&own, &person.file] {
            let mut chosen = read(file)?;
            chosen["contexts"][0]["context"]["namespace"] = json!("mine");
            chosen["contexts"][0]["context"]["user"] = json!("another");
            fs::write(file, to_yaml(&chosen)?)?;
        }
        entry().write(&own)?;
        entry().merge_into(&person)?;
        let context = json!({"cluster": "pilothouse", "user": "pilothouse-admin", "namespace": "mine"});
        for file in [&own, &person.file] {
            let contexts = read(file)?["contexts"].take();
            assert_eq!(contexts, json!([{"name": "pilothouse", "context": context}]));
        }
        Ok(())
    }

    #[test]
    fn what_is_no_kubeconfig_is_left_alone() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let person = Person { file: dir.path().join("config"), owner: None };
        fs::write(&person.file, "- just\n- a list\n")?;
        assert!(entry().merge_into(&person).is_err());
        assert_eq!(fs::read_to_string(&person.file)?, "- just\n- a list\n");
        Ok(())
    }
}
