//! A registry in an object store, by the URLs of Feast's stores of that name.

use super::Place;
use crate::model::Secret;
use crate::registry::{Bucket, ObjectSettings, RegistrySettings};

/// The usual ending of a storage account's host.
const AZURE_BLOBS: &str = ".blob.core.windows.net";
const AZURE_LAKE: &str = ".dfs.core.windows.net";

pub(super) fn s3(mut place: Place<'_, '_>) -> Option<RegistrySettings> {
    let (bucket, key) = place.bucket_and_key("s3")?;
    // boto3's variables, after Feast's own.
    let endpoint = ["FEAST_S3_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]
        .iter()
        .find_map(|name| place.variable(name));
    let bucket = Bucket::S3 { bucket, endpoint: endpoint.map(str::to_owned) };
    Some(place.object(bucket, key, &["AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"]))
}

pub(super) fn gcs(mut place: Place<'_, '_>) -> Option<RegistrySettings> {
    let (bucket, key) = place.bucket_and_key("gs")?;
    let emulator = place.variable("STORAGE_EMULATOR_HOST").map(|host| match host {
        url if url.contains("://") => url.to_owned(),
        host => format!("http://{host}"),
    });
    let bucket = Bucket::Gcs { bucket, emulator };
    Some(place.object(bucket, key, &["REQUESTS_CA_BUNDLE"]))
}

/// `https://ACCOUNT.blob.core.windows.net/CONTAINER/BLOB`, as Feast has it, and the shorter forms.
pub(super) fn azure(mut place: Place<'_, '_>) -> Option<RegistrySettings> {
    const EXPECTED: &str = "expected https://ACCOUNT.blob.core.windows.net/CONTAINER/BLOB, az://CONTAINER/BLOB or \
         abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/BLOB";
    let text = place.text;
    let Some((scheme, rest)) = text.split_once("://") else {
        place.error(EXPECTED);
        return None;
    };
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let path = path.trim_start_matches('/');
    let (account, endpoint, container, blob) = match (scheme, host.split_once('@')) {
        ("http" | "https", None) => {
            let (container, blob) = path.split_once('/').unwrap_or((path, ""));
            let usual = scheme == "https" && host.ends_with(AZURE_BLOBS);
            let endpoint = (!usual).then(|| format!("{scheme}://{host}"));
            (account_of(host), endpoint, container, blob)
        }
        ("abfs" | "abfss", Some((container, host))) if host.ends_with(AZURE_LAKE) => {
            (account_of(host), None, container, path)
        }
        ("az" | "abfs" | "abfss", None) => (None, None, host, path),
        _ => (None, None, "", ""),
    };
    if container.is_empty() || blob.is_empty() {
        place.error(EXPECTED);
        return None;
    }
    if account.is_none() && place.variable("AZURE_STORAGE_ACCOUNT_NAME").is_none() {
        place.error("names no storage account; set the variable AZURE_STORAGE_ACCOUNT_NAME");
        return None;
    }
    let (container, blob) = (container.to_owned(), blob.to_owned());
    let access_key = place.variable("REGISTRY_BLOB_KEY").map(|key| Secret(key.to_owned()));
    let bucket = Bucket::Azure { account, endpoint, container, access_key };
    Some(place.object(bucket, blob, &["REQUESTS_CA_BUNDLE"]))
}

/// The first label of a host name; an address has none.
fn account_of(host: &str) -> Option<String> {
    let (label, _) = host.split_once('.')?;
    (!label.is_empty() && !label.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| label.to_owned())
}

impl Place<'_, '_> {
    /// The host of a URL, in lower case as Feast has it, and the path.
    fn bucket_and_key(&mut self, scheme: &str) -> Option<(String, String)> {
        let rest = self.text.strip_prefix(scheme).and_then(|rest| rest.strip_prefix("://"));
        let parts = rest.and_then(|rest| rest.split_once('/'));
        let parts = parts.map(|(bucket, key)| (bucket, key.trim_start_matches('/')));
        match parts.filter(|(bucket, key)| !bucket.is_empty() && !key.is_empty()) {
            Some((bucket, key)) => Some((bucket.to_ascii_lowercase(), key.to_owned())),
            None => {
                self.error(format!("expected {scheme}://BUCKET/KEY"));
                None
            }
        }
    }

    /// `authorities`: the variables that may name a file of them, the first of which counts.
    fn object(&self, bucket: Bucket, key: String, authorities: &[&str]) -> RegistrySettings {
        let ca = authorities.iter().find_map(|name| self.variable(name));
        let ca = ca.map(|path| self.beside_us(path));
        RegistrySettings::Object(ObjectSettings { bucket, key, ca })
    }
}
