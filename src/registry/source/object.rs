//! A registry in an object store: S3, Google Cloud Storage, Azure Blob Storage.
//!
//! Who larder is comes from the provider's own variables and services, as `object_store` finds
//! them: keys in the environment, a pod's web identity, the machine's metadata service.

use std::{fs, sync::Arc};

use object_store::{
    Certificate, ClientOptions, Error, GetOptions, ObjectStore, RetryConfig, aws::AmazonS3Builder,
    azure::MicrosoftAzureBuilder, gcp::GoogleCloudStorageBuilder, path::Path,
};
use tonic::codegen::tokio_stream::StreamExt;

use super::{Fetched, Fetching, Marker, RegistryError};
use crate::registry::settings::{Bucket, FetchLimits, ObjectSettings};

const CREDENTIALS: &str =
    "that the bucket exists, and that larder's credentials may read the object";

/// An object, and a client that is made when it is first read.
#[derive(Debug)]
pub(super) struct ObjectSource {
    settings: ObjectSettings,
    client: Option<Arc<dyn ObjectStore>>,
}

impl ObjectSource {
    pub(super) fn new(settings: ObjectSettings) -> Self {
        Self { settings, client: None }
    }

    /// One conditional GET; its ETag is the marker.
    pub(super) async fn fetch(&mut self, fetching: Fetching<'_>) -> Result<Fetched, RegistryError> {
        let Fetching { place, limits, .. } = fetching;
        let client = self.client(fetching)?;
        let known = fetching.known.map(|Marker(etag)| etag.to_string());
        let options = GetOptions { if_none_match: known, ..GetOptions::default() };
        // The key as it is: `Path::from` would encode what Feast did not.
        let path = Path::parse(&self.settings.key)
            .map_err(|error| RegistryError::unreadable(place, error))?;
        let found = match client.get_opts(&path, options).await {
            Err(Error::NotModified { .. }) if fetching.known.is_some() => {
                return Ok(Fetched::Unchanged);
            }
            found => found.map_err(|error| failure(place, error))?,
        };
        let too_large =
            || RegistryError::TooLarge { place: place.to_owned(), max_bytes: limits.max_bytes };
        let length = found.meta.size;
        if length > limits.max_bytes {
            return Err(too_large());
        }
        let marker = found.meta.e_tag.as_deref().map(Marker::new);
        let mut bytes = Vec::new();
        let mut parts = found.into_stream();
        while let Some(part) = parts.next().await {
            let part = part.map_err(|error| failure(place, error))?;
            if (bytes.len() + part.len()) as u64 > limits.max_bytes {
                return Err(too_large());
            }
            bytes.extend_from_slice(&part);
        }
        if bytes.len() as u64 != length {
            return Err(RegistryError::BeingWritten { place: place.to_owned() });
        }
        Ok(Fetched::Bytes { bytes, marker })
    }

    fn client(&mut self, fetching: Fetching<'_>) -> Result<Arc<dyn ObjectStore>, RegistryError> {
        if let Some(client) = &self.client {
            return Ok(Arc::clone(client));
        }
        let unusable = |error| RegistryError::unreadable(fetching.place, error);
        let options = client_options(&self.settings, fetching.limits).map_err(unusable)?;
        let client = connect(&self.settings.bucket, options)
            .map_err(|error| failure(fetching.place, error))?;
        Ok(Arc::clone(self.client.insert(client)))
    }
}

/// Each read has a connection of its own: one that idles for a minute is often closed unseen.
fn client_options(
    settings: &ObjectSettings,
    limits: FetchLimits,
) -> Result<ClientOptions, Box<dyn std::error::Error + Send + Sync>> {
    let mut options = ClientOptions::new()
        .with_timeout(limits.timeout)
        // Less, so that it is told who could not be reached: it may be a credentials' service.
        .with_connect_timeout(limits.timeout / 2)
        .with_pool_max_idle_per_host(0);
    if let Some(ca) = &settings.ca {
        let named = |error: &dyn std::fmt::Display| format!("`{}`: {error}", ca.display());
        let pem = fs::read(ca).map_err(|error| named(&error))?;
        let certificates = Certificate::from_pem_bundle(&pem).map_err(|error| named(&error))?;
        for certificate in certificates {
            options = options.with_root_certificate(certificate);
        }
    }
    Ok(options)
}

fn connect(bucket: &Bucket, options: ClientOptions) -> Result<Arc<dyn ObjectStore>, Error> {
    // What fails is tried again by the next refresh.
    let once = RetryConfig { max_retries: 0, ..RetryConfig::default() };
    let allow_http = |endpoint: &Option<String>| {
        endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http://"))
    };
    Ok(match bucket {
        Bucket::S3 { bucket, endpoint } => {
            // Before the rest: it also brings the identity of the pod.
            let mut builder = AmazonS3Builder::from_env()
                .with_client_options(options.with_allow_http(allow_http(endpoint)))
                .with_retry(once)
                .with_bucket_name(bucket);
            if let Some(endpoint) = endpoint {
                builder = builder.with_endpoint(endpoint).with_virtual_hosted_style_request(false);
            }
            Arc::new(builder.build()?)
        }
        Bucket::Gcs { bucket, emulator } => {
            let mut builder = GoogleCloudStorageBuilder::from_env()
                .with_client_options(options.with_allow_http(allow_http(emulator)))
                .with_retry(once)
                .with_bucket_name(bucket);
            if let Some(emulator) = emulator {
                builder = builder.with_base_url(emulator).with_skip_signature(true);
            }
            Arc::new(builder.build()?)
        }
        Bucket::Azure { account, endpoint, container, access_key } => {
            let mut builder = MicrosoftAzureBuilder::from_env()
                .with_client_options(options.with_allow_http(allow_http(endpoint)))
                .with_retry(once)
                .with_container_name(container);
            if let Some(account) = account {
                builder = builder.with_account(account);
            }
            if let Some(endpoint) = endpoint {
                builder = builder.with_endpoint(endpoint.clone());
            }
            if let Some(key) = access_key {
                builder = builder.with_access_key(&key.0);
            }
            Arc::new(builder.build()?)
        }
    })
}

fn failure(place: &str, error: Error) -> RegistryError {
    let refused = matches!(
        error,
        Error::NotFound { .. } | Error::PermissionDenied { .. } | Error::Unauthenticated { .. }
    );
    let cause = without_queries(&error.to_string());
    if refused {
        let (place, cause) = (place.to_owned(), cause.into());
        return RegistryError::Refused { place, check: CREDENTIALS, cause };
    }
    RegistryError::unreadable(place, cause)
}

/// The text without what URLs in it have behind a `?`: a signature of Azure's gives access.
fn without_queries(text: &str) -> String {
    let words = text.split_inclusive(char::is_whitespace).map(|word| {
        let query = word.find("://").and_then(|url| Some(url + word[url..].find('?')?));
        match query {
            Some(query) => format!("{}?... ", &word[..query]),
            None => word.to_owned(),
        }
    });
    words.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_of_urls_are_not_told() {
        let text = "GET https://a.example/c/b?sv=1&sig=s3cret in 1ms: what? https://b.example/c";
        let told = "GET https://a.example/c/b?... in 1ms: what? https://b.example/c";
        assert_eq!(without_queries(text), told);
    }
}
