//! The ciphers of values, bit for bit as upstream stores them. Their errors are upstream's words, too: clients see them.

use aes::cipher::consts::U12;
use aes::cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use aes::{Aes128, Aes192, Aes256, Block};
use aes_gcm::AesGcm;
use aes_gcm::aead::{Aead, Payload};
use poly1305::Poly1305;
use ring::hkdf;
use ring::rand::{SecureRandom, SystemRandom};
use salsa20::XSalsa20;
use salsa20::cipher::{KeyIvInit, StreamCipher};

const BLOCK: usize = 16;
const GCM_NONCE: usize = 12;
const BOX_NONCE: usize = 24;
const TAG: usize = 16;
/// Random bytes in front of a value, from which with the seed its own key comes.
const INFO: usize = 32;

const SHORT: &str = "the stored data was shorter than the required size";

/// Random bytes of the system.
///
/// # Errors
/// When it has none.
pub(super) fn random<const N: usize>() -> Result<[u8; N], String> {
    let mut bytes = [0; N];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map(|()| bytes).map_err(|_| "unable to read sufficient random bytes".to_owned())
}

/// A key, in the cipher that it is for.
pub(super) enum Cipher {
    Cbc(Box<dyn Blocks>),
    Gcm(Box<dyn Sealing>),
    /// XSalsa20 and Poly1305.
    Secretbox(Box<[u8; 32]>),
}

impl std::fmt::Debug for Cipher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Cipher::Cbc(_) => "Cipher(aescbc)",
            Cipher::Gcm(_) => "Cipher(aesgcm)",
            Cipher::Secretbox(_) => "Cipher(secretbox)",
        })
    }
}

/// A block cipher of a key.
pub(super) trait Blocks: Send + Sync {
    fn encrypt(&self, block: &mut Block);
    fn decrypt(&self, block: &mut Block);
}

impl<C: BlockCipherEncrypt<BlockSize = aes::cipher::consts::U16> + BlockCipherDecrypt + Send + Sync> Blocks for C {
    fn encrypt(&self, block: &mut Block) {
        self.encrypt_block(block);
    }
    fn decrypt(&self, block: &mut Block) {
        self.decrypt_block(block);
    }
}

/// GCM of a key.
pub(super) trait Sealing: Send + Sync {
    fn seal(&self, nonce: [u8; GCM_NONCE], data: &[u8], context: &[u8]) -> Option<Vec<u8>>;
    fn open(&self, nonce: [u8; GCM_NONCE], data: &[u8], context: &[u8]) -> Option<Vec<u8>>;
}

impl<C: Aead<NonceSize = U12> + Send + Sync> Sealing for C {
    fn seal(&self, nonce: [u8; GCM_NONCE], data: &[u8], context: &[u8]) -> Option<Vec<u8>> {
        self.encrypt(&nonce.into(), Payload { msg: data, aad: context }).ok()
    }
    fn open(&self, nonce: [u8; GCM_NONCE], data: &[u8], context: &[u8]) -> Option<Vec<u8>> {
        self.decrypt(&nonce.into(), Payload { msg: data, aad: context }).ok()
    }
}

fn gcm(key: &[u8]) -> Option<Box<dyn Sealing>> {
    Some(match key.len() {
        16 => Box::new(AesGcm::<Aes128, U12>::new_from_slice(key).ok()?),
        24 => Box::new(AesGcm::<Aes192, U12>::new_from_slice(key).ok()?),
        32 => Box::new(AesGcm::<Aes256, U12>::new_from_slice(key).ok()?),
        _ => return None,
    })
}

impl Cipher {
    /// `None`: the key's length is wrong.
    pub(super) fn cbc(key: &[u8]) -> Option<Self> {
        Some(Cipher::Cbc(match key.len() {
            16 => Box::new(Aes128::new_from_slice(key).ok()?),
            24 => Box::new(Aes192::new_from_slice(key).ok()?),
            32 => Box::new(Aes256::new_from_slice(key).ok()?),
            _ => return None,
        }))
    }
    /// `None`: the key's length is wrong.
    pub(super) fn gcm(key: &[u8]) -> Option<Self> {
        gcm(key).map(Cipher::Gcm)
    }
    /// `None`: the key's length is wrong.
    pub(super) fn secretbox(key: &[u8]) -> Option<Self> {
        Some(Cipher::Secretbox(Box::new(key.try_into().ok()?)))
    }

    /// Encrypts a value; `context` is authenticated with it, where the cipher can.
    ///
    /// # Errors
    /// Without random bytes.
    pub(super) fn seal(&self, data: &[u8], context: &[u8]) -> Result<Vec<u8>, String> {
        match self {
            Cipher::Cbc(blocks) => Ok(seal_cbc(&**blocks, random()?, data)),
            Cipher::Gcm(key) => seal_gcm(&**key, random()?, data, context),
            Cipher::Secretbox(key) => Ok(seal_box(key, random()?, data)),
        }
    }

    /// Decrypts a stored value.
    ///
    /// # Errors
    /// It is damaged, or not of this key.
    pub(super) fn open(&self, data: &[u8], context: &[u8]) -> Result<Vec<u8>, String> {
        match self {
            Cipher::Cbc(blocks) => open_cbc(&**blocks, data),
            Cipher::Gcm(key) => open_gcm(&**key, data, context),
            Cipher::Secretbox(key) => open_box(key, data),
        }
    }
}

/// The vector, then blocks; PKCS #7 pads.
fn seal_cbc(blocks: &dyn Blocks, vector: [u8; BLOCK], data: &[u8]) -> Vec<u8> {
    let padding = BLOCK - data.len() % BLOCK;
    let mut sealed = Vec::with_capacity(BLOCK + data.len() + padding);
    sealed.extend_from_slice(&vector);
    sealed.extend_from_slice(data);
    sealed.resize(BLOCK + data.len() + padding, padding as u8);
    let mut last = vector;
    for chunk in sealed[BLOCK..].chunks_exact_mut(BLOCK) {
        let mut block = [0; BLOCK];
        block.iter_mut().zip(chunk.iter().zip(last)).for_each(|(to, (one, other))| *to = one ^ other);
        let mut block = Block::from(block);
        blocks.encrypt(&mut block);
        chunk.copy_from_slice(&block);
        last = block.into();
    }
    sealed
}

fn open_cbc(blocks: &dyn Blocks, data: &[u8]) -> Result<Vec<u8>, String> {
    let (vector, data) = data.split_at_checked(BLOCK).ok_or(SHORT)?;
    if data.len() % BLOCK != 0 {
        return Err("the stored data is not a multiple of the block size".to_owned());
    }
    let mut opened = Vec::with_capacity(data.len());
    let mut last = vector;
    for chunk in data.chunks_exact(BLOCK) {
        let mut block = Block::default();
        block.copy_from_slice(chunk);
        blocks.decrypt(&mut block);
        opened.extend(block.iter().zip(last).map(|(one, other)| one ^ other));
        last = chunk;
    }
    let padding = opened.last().copied().map_or(0, usize::from);
    if padding == 0 || padding > opened.len() {
        return Err("invalid PKCS7 data (empty or not padded)".to_owned());
    }
    let size = opened.len() - padding;
    if opened[size..].iter().any(|byte| usize::from(*byte) != padding) {
        return Err("invalid padding on input".to_owned());
    }
    opened.truncate(size);
    Ok(opened)
}

/// The nonce, the ciphertext, the tag.
fn seal_gcm(key: &dyn Sealing, nonce: [u8; GCM_NONCE], data: &[u8], context: &[u8]) -> Result<Vec<u8>, String> {
    let sealed = key.seal(nonce, data, context).ok_or("the value is too large for AES-GCM")?;
    Ok([&nonce[..], &sealed].concat())
}

fn open_gcm(key: &dyn Sealing, data: &[u8], context: &[u8]) -> Result<Vec<u8>, String> {
    let (nonce, sealed) = data.split_first_chunk::<GCM_NONCE>().ok_or(SHORT)?;
    key.open(*nonce, sealed, context).ok_or_else(|| "cipher: message authentication failed".to_owned())
}

/// NaCl's: the first 32 bytes of the stream are the key of the tag, and the message is encrypted with what follows.
fn streams(key: &[u8; 32], nonce: &[u8; BOX_NONCE]) -> (Poly1305, XSalsa20) {
    let mut stream = XSalsa20::new(&(*key).into(), &(*nonce).into());
    let mut once = [0; 32];
    stream.apply_keystream(&mut once);
    (Poly1305::new(&once.into()), stream)
}

/// The nonce, the tag, the ciphertext.
fn seal_box(key: &[u8; 32], nonce: [u8; BOX_NONCE], data: &[u8]) -> Vec<u8> {
    let (tag, mut stream) = streams(key, &nonce);
    let mut sealed = Vec::with_capacity(BOX_NONCE + TAG + data.len());
    sealed.extend_from_slice(&nonce);
    sealed.resize(BOX_NONCE + TAG, 0);
    sealed.extend_from_slice(data);
    stream.apply_keystream(&mut sealed[BOX_NONCE + TAG..]);
    let tag = tag.compute_unpadded(&sealed[BOX_NONCE + TAG..]);
    sealed[BOX_NONCE..BOX_NONCE + TAG].copy_from_slice(&tag);
    sealed
}

fn open_box(key: &[u8; 32], data: &[u8]) -> Result<Vec<u8>, String> {
    let (nonce, rest) = data.split_first_chunk::<BOX_NONCE>().ok_or(SHORT)?;
    let (told, sealed) = rest.split_first_chunk::<TAG>().ok_or(SHORT)?;
    let (tag, mut stream) = streams(key, nonce);
    let tag = tag.compute_unpadded(sealed);
    // Every byte is looked at, however many differ.
    if tag.iter().zip(told).fold(0, |differing, (one, other)| differing | (one ^ other)) != 0 {
        // Upstream's words for it.
        return Err("output array was not large enough for encryption".to_owned());
    }
    let mut opened = sealed.to_vec();
    stream.apply_keystream(&mut opened);
    Ok(opened)
}

/// What the values of one envelope are encrypted with.
pub(super) enum DataKey {
    /// Before 1.29: one key for many values.
    Key(Box<dyn Sealing>),
    /// Since: every value has its own key, derived from this by 32 random bytes in front of the value.
    Seed(hkdf::Prk),
}

impl DataKey {
    /// A new seed, and its bytes for the plugin to encrypt.
    pub(super) fn generate() -> Result<(Self, [u8; INFO]), String> {
        let seed = random()?;
        Ok((DataKey::Seed(hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, &seed)), seed))
    }

    /// # Errors
    /// The plugin gave what can't be one.
    pub(super) fn new(secret: &[u8], seed: bool) -> Result<Self, String> {
        if !seed {
            let key = gcm(secret).ok_or_else(|| format!("crypto/aes: invalid key size {}", secret.len()))?;
            return Ok(DataKey::Key(key));
        }
        if secret.len() < INFO {
            return Err(format!("invalid seed length {} used for key generation", secret.len()));
        }
        Ok(DataKey::Seed(hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, secret)))
    }

    fn derived(seed: &hkdf::Prk, info: &[u8]) -> Result<Box<dyn Sealing>, String> {
        let mut key = [0; 32];
        let expanded = seed.expand(&[info], hkdf::HKDF_SHA256).and_then(|output| output.fill(&mut key));
        let derived = expanded.ok().and_then(|()| gcm(&key));
        derived.ok_or_else(|| "failed to read a derived key from KDF".to_owned())
    }

    pub(super) fn seal(&self, data: &[u8], context: &[u8]) -> Result<Vec<u8>, String> {
        match self {
            DataKey::Key(key) => seal_gcm(&**key, random()?, data, context),
            DataKey::Seed(seed) => {
                let info: [u8; INFO] = random()?;
                let key = Self::derived(seed, &info)?;
                Ok([&info[..], &seal_gcm(&*key, random()?, data, context)?].concat())
            }
        }
    }

    pub(super) fn open(&self, data: &[u8], context: &[u8]) -> Result<Vec<u8>, String> {
        match self {
            DataKey::Key(key) => open_gcm(&**key, data, context),
            DataKey::Seed(seed) => {
                let (info, sealed) = data.split_at_checked(INFO).ok_or(SHORT)?;
                open_gcm(&*Self::derived(seed, info)?, sealed, context)
            }
        }
    }
}

#[cfg(test)]
mod tests;
