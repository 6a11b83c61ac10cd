//! The node's own log files.

use std::{
    fs,
    path::{Component, Path},
};

use http::{HeaderValue, Response, StatusCode, header};

use super::{Body, full, text};

/// More of a file than this is not served at once.
const MOST: u64 = 64 << 20;

/// Answers with a file below `root`, or with a page that links a directory's entries.
pub(super) async fn serve(root: &Path, parts: &[&str]) -> Response<Body> {
    let mut path = root.to_owned();
    for part in parts.iter().filter(|part| !part.is_empty()) {
        let plain = Path::new(part).components().all(|part| matches!(part, Component::Normal(_)));
        if !plain || part.contains('/') {
            return text(StatusCode::BAD_REQUEST, "invalid URL path\n");
        }
        path.push(part);
    }
    let root = root.to_owned();
    tokio::task::spawn_blocking(move || answer(&root, &path))
        .await
        .unwrap_or_else(|error| text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}

fn answer(root: &Path, path: &Path) -> Response<Body> {
    let missing = || text(StatusCode::NOT_FOUND, "404 page not found\n");
    // Links may lead anywhere; only what is really below is served.
    let (Ok(real), Ok(root)) = (path.canonicalize(), root.canonicalize()) else {
        return missing();
    };
    if !real.starts_with(&root) {
        return missing();
    }
    let Ok(metadata) = fs::metadata(&real) else { return missing() };
    if metadata.is_dir() {
        let mut names: Vec<String> = fs::read_dir(&real)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| {
                let name = entry.file_name().to_string_lossy().into_owned();
                if entry.path().is_dir() { name + "/" } else { name }
            })
            .collect();
        names.sort();
        let links: String = names.iter().map(|name| format!("<a href=\"{0}\">{0}</a>\n", escape(name))).collect();
        let mut response = Response::new(full(format!("<pre>\n{links}</pre>\n")));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
        return response;
    }
    if metadata.len() > MOST {
        return text(StatusCode::PAYLOAD_TOO_LARGE, format!("the file has more than {MOST} bytes\n"));
    }
    match fs::read(&real) {
        Ok(bytes) => {
            let mut response = text(StatusCode::OK, "");
            *response.body_mut() = full(bytes);
            response
        }
        Err(_) => missing(),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&#34;")
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn only_files_below_are_served() {
        let outer = tempfile::tempdir().unwrap();
        let root = outer.path().join("log");
        fs::create_dir(&root).unwrap();
        fs::write(root.join("syslog"), "text").unwrap();
        fs::write(outer.path().join("secret"), "secret").unwrap();
        std::os::unix::fs::symlink("../secret", root.join("link")).unwrap();
        let get = async |parts: &[&str]| {
            let response = serve(&root, parts).await;
            let status = response.status().as_u16();
            let body = response.into_body().collect().await.unwrap().to_bytes();
            (status, String::from_utf8_lossy(&body).into_owned())
        };
        assert_eq!(get(&["syslog"]).await, (200, "text".into()));
        assert!(get(&[]).await.1.contains("<a href=\"syslog\">"));
        assert_eq!(get(&["link"]).await.0, 404);
        assert_eq!(get(&["..", "secret"]).await.0, 400);
        assert_eq!(get(&["../secret"]).await.0, 400);
    }
}
