//! Values as another implementation (Python's `cryptography`, NaCl's own test) stores them in upstream's layout.

use super::*;

const CONTEXT: &[u8] = b"/registry/secrets/default/s";
const VALUE: &[u8] = b"{\"kind\":\"Secret\",\"apiVersion\":\"v1\",\"metadata\":{\"name\":\"s\"}}\n";

fn bytes(hex: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex");
    (0..hex.len()).step_by(2).map(digit).collect()
}

fn counted(from: u8, length: u8) -> Vec<u8> {
    (from..from + length).collect()
}

const CBC: [&str; 3] = [
    "101112131415161718191a1b1c1d1e1f209581ba0b0976f0b35d4c5107d32b9573692aca5b1524dce2a63b1ee823cb0746e1030278aa0b0ed25f0c986bf8acde55c666577aed610a3f34cd9997b159a1",
    "101112131415161718191a1b1c1d1e1fdba7a4e970fec0e7488a206de49ebb4b9a5a40eab0bd1263526cc84003b1309b9c75a64f1b43bf29a6f0abfa6bee5a875f9c7c78e520d3686589f96055307e2a",
    "101112131415161718191a1b1c1d1e1f96d53b3f1d4737ef51eaf5ef90c15ca85cc854bbfe214d2143891e0dd50678f43d88fcdfaa8f62f12c10ac31d686a2798e51980f98d757e44909a3d00ca03044",
];
const GCM: [&str; 3] = [
    "202122232425262728292a2bbbd779cde8945b33991beab703aae05ce49314eeef004f96140aa8798579cf2d79a61ea2cc41ad64913dd4fcb549d524b551378eadc2b8e86227bba054523e2ad3da996f9d5684e7d154fd7e",
    "202122232425262728292a2b780fa115b3686ce1d36e1b489c25447fdde52ce0eab7f861c08bfd3733227bcb1b3dea7d87ff29fea108e5354aa2ed40cbf6862ae19a03abcd5ac399e8a72cb9b505737b1932e858307c850a",
    "202122232425262728292a2ba918cd1902fc3834382f27adb37d80dbfc6b8deceed6069c1f9f037c6bb07c7f44acc926e34041bb709c1af37a3364ea8c4b81ebb8060f12ec1f02170b5df0ba63357adf3fd19c821fd3c329",
];
const SEEDED: &str = "606162636465666768696a6b6c6d6e6f707172737475767778797a7b7c7d7e7f202122232425262728292a2b35f622e34cf0b8f7ac779e7a2b1f3063e0f2585d7117f01acfe12c865d9fdae887f96757faa703359a44cd846bfee6e3cf107268ef39087144aed9214e826a3db1545781d11557f2c00194bf";
/// The key, nonce, message and box of NaCl's `secretbox` tests.
const BOX: [&str; 4] = [
    "1b27556473e985d462cd51197a9a46c76009549eac6474f206c4ee0844f68389",
    "69696ee955b62b73cd62bda875fc73d68219e0036b7a0b37",
    "be075fc53c81f2d5cf141316ebeb0c7b5228c52a4c62cbd44b66849b64244ffce5ecbaaf33bd751a1ac728d45e6c61296cdc3c01233561f41db66cce314adb310e3be8250c46f06dceea3a7fa1348057e2f6556ad6b1318a024a838f21af1fde048977eb48f59ffd4924ca1c60902e52f0a089bc76897040e082f937763848645e0705",
    "f3ffc7703f9400e52a7dfb4b3d3305d98e993b9f48681273c29650ba32fc76ce48332ea7164d96a4476fb8c531a1186ac0dfc17c98dce87b4da7f011ec48c97271d2c20f9b928fe2270d6fb863d51738b48eeee314a7cc8ab932164548e526ae90224368517acfeabd6bb3732bc0e9da99832b61ca01b6de56244a9e88d5f9b37973f622a43d14a6599b1f654cb45a74e355a5",
];

#[test]
fn values_of_another_implementation_are_read_and_written_the_same() {
    for (at, length) in [16, 24, 32].into_iter().enumerate() {
        let key = counted(0, length);
        let (cbc, stored) = (Cipher::cbc(&key).expect("a key"), bytes(CBC[at]));
        assert_eq!(cbc.open(&stored, CONTEXT).as_deref(), Ok(VALUE));
        let Cipher::Cbc(blocks) = &cbc else { panic!("{cbc:?}") };
        assert_eq!(seal_cbc(&**blocks, counted(16, 16).try_into().expect("16 bytes"), VALUE), stored);
        let (gcm, stored) = (Cipher::gcm(&key).expect("a key"), bytes(GCM[at]));
        assert_eq!(gcm.open(&stored, CONTEXT).as_deref(), Ok(VALUE));
        let Cipher::Gcm(own) = &gcm else { panic!("{gcm:?}") };
        let nonce = counted(32, 12).try_into().expect("12 bytes");
        assert_eq!(seal_gcm(&**own, nonce, VALUE, CONTEXT), Ok(stored));
    }
    let seeded = DataKey::new(&counted(64, 32), true).expect("a seed");
    assert_eq!(seeded.open(&bytes(SEEDED), CONTEXT).as_deref(), Ok(VALUE));
    let plain = DataKey::new(&counted(0, 32), false).expect("a key");
    assert_eq!(plain.open(&bytes(GCM[2]), CONTEXT).as_deref(), Ok(VALUE));

    let [key, nonce, message, sealed] = BOX.map(bytes);
    let stored = [nonce.clone(), sealed].concat();
    assert_eq!(Cipher::secretbox(&key).expect("a key").open(&stored, b"anything"), Ok(message.clone()));
    let (key, nonce) = (key.try_into().expect("32 bytes"), nonce.try_into().expect("24 bytes"));
    assert_eq!(seal_box(&key, nonce, &message), stored);
}

fn ciphers() -> [Cipher; 3] {
    let key = counted(0, 32);
    [Cipher::cbc(&key), Cipher::gcm(&key), Cipher::secretbox(&key)].map(|cipher| cipher.expect("a key"))
}

#[test]
fn values_of_any_length_come_back_and_never_look_alike() {
    for cipher in ciphers() {
        for length in [0, 1, 15, 16, 17, 1000, 100_000] {
            let value = vec![7; length];
            let sealed = cipher.seal(&value, CONTEXT).expect("sealed");
            assert_eq!(cipher.open(&sealed, CONTEXT), Ok(value.clone()), "{cipher:?} {length}");
            assert_ne!(cipher.seal(&value, CONTEXT).expect("sealed"), sealed);
        }
    }
}

#[test]
fn damage_wrong_keys_and_other_places_are_noticed() {
    let [cbc, gcm, secretbox] = ciphers();
    let other = counted(1, 32);
    let short = Err("the stored data was shorter than the required size".to_owned());
    for cipher in [&cbc, &gcm, &secretbox] {
        assert_eq!(cipher.open(b"short", CONTEXT), short);
    }
    let stored = bytes(CBC[2]);
    assert_eq!(
        cbc.open(&stored[..stored.len() - 1], CONTEXT),
        Err("the stored data is not a multiple of the block size".to_owned())
    );
    assert_eq!(cbc.open(&stored[..16], CONTEXT), Err("invalid PKCS7 data (empty or not padded)".to_owned()));
    let wrong = Cipher::cbc(&other).expect("a key").open(&stored, CONTEXT).expect_err("another key");
    assert!(wrong.starts_with("invalid P") || wrong.starts_with("invalid padding"), "{wrong}");

    let failed = Err("cipher: message authentication failed".to_owned());
    let mut stored = bytes(GCM[2]);
    assert_eq!(gcm.open(&stored, b"/registry/secrets/default/other"), failed, "it was moved");
    assert_eq!(Cipher::gcm(&other).expect("a key").open(&stored, CONTEXT), failed);
    stored[20] ^= 1;
    assert_eq!(gcm.open(&stored, CONTEXT), failed);

    let mut stored = secretbox.seal(VALUE, CONTEXT).expect("sealed");
    let failed = Err("output array was not large enough for encryption".to_owned());
    assert_eq!(Cipher::secretbox(&other).expect("a key").open(&stored, CONTEXT), failed);
    let last = stored.len() - 1;
    stored[last] ^= 0x80;
    assert_eq!(secretbox.open(&stored, CONTEXT), failed);
    assert!(
        Cipher::cbc(&[0; 20]).is_none() && Cipher::gcm(&[0; 31]).is_none() && Cipher::secretbox(&[0; 16]).is_none()
    );
}
