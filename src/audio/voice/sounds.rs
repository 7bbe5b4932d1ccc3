//! The sounds of English: where their formants lie, what drives them and how long they last.

/// A sound, or a part of one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sound {
    /// Its name in the rules, after ARPAbet.
    name: &'static str,
    /// First three formants in Hz; `None` leaves them where they are.
    pub(super) formants: Option<[f32; 3]>,
    /// Level of the voice, of breath through the same resonators, and of hiss beside them, 0–1.
    pub(super) voice: f32,
    pub(super) breath: f32,
    pub(super) hiss: f32,
    /// Middle of the hiss, in Hz.
    pub(super) hiss_hz: f32,
    /// Usual duration in ms.
    pub(super) ms: f32,
    pub(super) is_vowel: bool,
    /// Name of the sound a diphthong or a stop ends in, and the share of time before that.
    then: Option<(&'static str, f32)>,
}

impl Sound {
    /// The sound of this name.
    pub(super) fn named(name: &str) -> Option<Self> {
        SOUNDS.iter().find(|sound| sound.name == name).copied()
    }

    /// One or two parts with their shares of the duration.
    pub(super) fn parts(&self) -> impl Iterator<Item = (Self, f32)> + use<> {
        let second = self.then.and_then(|(name, share)| Some((Self::named(name)?, share)));
        let first_share = second.map_or(1.0, |(_, share)| share);
        let rest = second.map(|(sound, share)| (sound, 1.0 - share));
        std::iter::once((*self, first_share)).chain(rest)
    }

    const fn vowel(name: &'static str, formants: [f32; 3], ms: f32) -> Self {
        Self { name, formants: Some(formants), voice: 1.0, ms, is_vowel: true, ..SILENCE }
    }

    const fn glide(name: &'static str, from: [f32; 3], to: &'static str) -> Self {
        Self { then: Some((to, 0.55)), ..Self::vowel(name, from, 135.0) }
    }

    const fn sonorant(name: &'static str, formants: [f32; 3], voice: f32, ms: f32) -> Self {
        Self { name, formants: Some(formants), voice, ms, ..SILENCE }
    }

    const fn fricative(name: &'static str, hiss_hz: f32, hiss: f32, voice: f32, ms: f32) -> Self {
        Self { name, hiss_hz, hiss, voice, ms, ..SILENCE }
    }

    /// A closure, with a murmur if voiced, that ends in a burst.
    const fn stop(name: &'static str, formants: [f32; 3], voice: f32, burst: &'static str) -> Self {
        Self { name, formants: Some(formants), voice, ms: 72.0, then: Some((burst, 0.7)), ..SILENCE }
    }
}

/// Nothing.
pub(super) const SILENCE: Sound = Sound {
    name: "",
    formants: None,
    voice: 0.0,
    breath: 0.0,
    hiss: 0.0,
    hiss_hz: 4_000.0,
    ms: 0.0,
    is_vowel: false,
    then: None,
};

/// Formants of the vowels are Peterson and Barney's means for men.
const SOUNDS: &[Sound] = &[
    Sound::vowel("IY", [270.0, 2_290.0, 3_010.0], 105.0),
    Sound::vowel("IH", [390.0, 1_990.0, 2_550.0], 80.0),
    Sound::vowel("EH", [530.0, 1_840.0, 2_480.0], 90.0),
    Sound::vowel("AE", [660.0, 1_720.0, 2_410.0], 110.0),
    Sound::vowel("AA", [730.0, 1_090.0, 2_440.0], 115.0),
    Sound::vowel("AO", [570.0, 840.0, 2_410.0], 115.0),
    Sound::vowel("UH", [440.0, 1_020.0, 2_240.0], 80.0),
    Sound::vowel("UW", [300.0, 870.0, 2_240.0], 105.0),
    Sound::vowel("AH", [640.0, 1_190.0, 2_390.0], 85.0),
    Sound::vowel("AX", [500.0, 1_400.0, 2_450.0], 60.0),
    Sound::vowel("ER", [490.0, 1_350.0, 1_690.0], 105.0),
    Sound::glide("EY", [480.0, 1_950.0, 2_550.0], "IY"),
    Sound::glide("AY", [730.0, 1_150.0, 2_440.0], "IY"),
    Sound::glide("OY", [570.0, 840.0, 2_410.0], "IY"),
    Sound::glide("AW", [730.0, 1_200.0, 2_440.0], "UW"),
    Sound::glide("OW", [500.0, 950.0, 2_400.0], "UW"),
    Sound::sonorant("M", [250.0, 1_000.0, 2_200.0], 0.4, 68.0),
    Sound::sonorant("N", [250.0, 1_600.0, 2_600.0], 0.4, 64.0),
    Sound::sonorant("NG", [250.0, 2_000.0, 2_700.0], 0.4, 72.0),
    Sound::sonorant("L", [360.0, 1_050.0, 2_700.0], 0.6, 62.0),
    Sound::sonorant("R", [420.0, 1_200.0, 1_550.0], 0.6, 62.0),
    Sound::sonorant("W", [300.0, 650.0, 2_200.0], 0.55, 62.0),
    Sound::sonorant("Y", [280.0, 2_250.0, 3_000.0], 0.55, 58.0),
    Sound::fricative("S", 5_600.0, 0.34, 0.0, 88.0),
    Sound::fricative("SH", 2_900.0, 0.34, 0.0, 92.0),
    Sound::fricative("F", 7_500.0, 0.18, 0.0, 78.0),
    Sound::fricative("TH", 6_800.0, 0.14, 0.0, 76.0),
    Sound::fricative("Z", 5_600.0, 0.17, 0.35, 70.0),
    Sound::fricative("ZH", 2_900.0, 0.17, 0.35, 72.0),
    Sound::fricative("V", 7_000.0, 0.07, 0.4, 58.0),
    Sound::fricative("DH", 6_500.0, 0.06, 0.4, 46.0),
    Sound { breath: 1.0, ..Sound::sonorant("HH", [500.0, 1_500.0, 2_500.0], 0.0, 60.0) },
    Sound::stop("P", [300.0, 800.0, 2_200.0], 0.0, "p+"),
    Sound::stop("T", [300.0, 1_750.0, 2_700.0], 0.0, "t+"),
    Sound::stop("K", [300.0, 1_900.0, 2_300.0], 0.0, "k+"),
    Sound::stop("B", [220.0, 800.0, 2_200.0], 0.16, "b+"),
    Sound::stop("D", [220.0, 1_750.0, 2_700.0], 0.16, "d+"),
    Sound::stop("G", [220.0, 1_900.0, 2_300.0], 0.16, "g+"),
    Sound { then: Some(("SH", 0.4)), ..Sound::stop("CH", [300.0, 1_800.0, 2_600.0], 0.0, "") },
    Sound { then: Some(("ZH", 0.4)), ..Sound::stop("JH", [220.0, 1_800.0, 2_600.0], 0.16, "") },
    Sound { breath: 0.8, ..Sound::fricative("p+", 900.0, 0.15, 0.0, 0.0) },
    Sound { breath: 0.6, ..Sound::fricative("t+", 4_200.0, 0.38, 0.0, 0.0) },
    Sound { breath: 0.6, ..Sound::fricative("k+", 2_000.0, 0.35, 0.0, 0.0) },
    Sound::fricative("b+", 900.0, 0.08, 0.6, 0.0),
    Sound::fricative("d+", 4_000.0, 0.2, 0.6, 0.0),
    Sound::fricative("g+", 2_000.0, 0.18, 0.6, 0.0),
];
