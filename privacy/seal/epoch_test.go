package seal

import (
	"bytes"
	"strings"
	"testing"
)

func TestEpochKeyRoundTrip(t *testing.T) {
	key := newEpochKey(t)
	key.Epoch = 1 << 40
	got, err := DecodeEpochKey(key.Encode())
	if err != nil {
		t.Fatal(err)
	}
	if got.Epoch != key.Epoch || got.Recipient() != key.Recipient() || !bytes.Equal(got.Encode(), key.Encode()) {
		t.Errorf("epoch %d, recipient %s", got.Epoch, got.Recipient())
	}
	if !strings.HasPrefix(key.Recipient(), "age1") || strings.Contains(key.Recipient(), "SECRET") {
		t.Errorf("recipient %q", key.Recipient())
	}
	sealed, err := SealTo([]byte("x"), []string{key.Recipient()})
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := OpenFrom(sealed, got); err != nil || string(plain) != "x" {
		t.Errorf("the decoded key opens %q, %v", plain, err)
	}
}

func TestDecodeEpochKeyRefuses(t *testing.T) {
	good := newEpochKey(t).Encode()
	for cut := range len(good) {
		if _, err := DecodeEpochKey(good[:cut]); err == nil {
			t.Fatalf("cut to %d bytes: decoded", cut)
		}
	}
	if _, err := DecodeEpochKey(append(good, 0)); err == nil {
		t.Error("a byte more: decoded")
	}
}

func TestEpochAnnouncement(t *testing.T) {
	key, signer := newEpochKey(t), newKey(t)
	sig := key.Sign("shop", "c1", signer)
	if !VerifyEpochKey(public(signer), "shop", "c1", key.Epoch, key.Recipient(), sig) {
		t.Fatal("an announcement does not verify")
	}
	other := newEpochKey(t)
	if VerifyEpochKey(public(signer), "stall", "c1", key.Epoch, key.Recipient(), sig) ||
		VerifyEpochKey(public(signer), "shop", "c2", key.Epoch, key.Recipient(), sig) ||
		VerifyEpochKey(public(signer), "shopc", "1", key.Epoch, key.Recipient(), sig) ||
		VerifyEpochKey(public(signer), "shop", "c1", key.Epoch+1, key.Recipient(), sig) ||
		VerifyEpochKey(public(signer), "shop", "c1", key.Epoch, other.Recipient(), sig) ||
		VerifyEpochKey(public(newKey(t)), "shop", "c1", key.Epoch, key.Recipient(), sig) ||
		VerifyEpochKey(public(signer), "shop", "c1", key.Epoch, key.Recipient(), nil) {
		t.Error("an announcement verifies for something else")
	}
}

func FuzzDecodeEpochKey(f *testing.F) {
	f.Add(newEpochKey(f).Encode())
	f.Add([]byte{0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		key, err := DecodeEpochKey(b)
		if err == nil && !bytes.Equal(key.Encode(), b) {
			t.Fatalf("%q encodes as %q", b, key.Encode())
		}
	})
}
