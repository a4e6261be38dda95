package seal

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"filippo.io/age"
)

func sealStream(t *testing.T, lock Lock, plain []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := SealStream(&out, lock)
	if err == nil {
		_, err = w.Write(plain)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func openStream(sealed []byte, unlock Unlock) ([]byte, error) {
	r, err := OpenStream(bytes.NewReader(sealed), unlock)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

func newIdentity(t *testing.T) *age.X25519Identity {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// A stream opens for its recipients and nobody else; cut or changed anywhere it is damaged.
func TestStreamForRecipients(t *testing.T) {
	plain := bytes.Repeat([]byte("row after row "), 10_000) // more than two of age's chunks
	first, second, stranger := newIdentity(t), newIdentity(t), newIdentity(t)
	sealed := sealStream(t, Lock{Recipients: []string{first.Recipient().String(), second.Recipient().String()}}, plain)
	for _, id := range []*age.X25519Identity{first, second} {
		if got, err := openStream(sealed, Unlock{Identities: "# a comment\n" + id.String() + "\n"}); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	}
	if _, err := openStream(sealed, Unlock{Identities: stranger.String()}); !errors.Is(err, ErrRecipient) {
		t.Errorf("a stranger: %v", err)
	}
	for _, n := range []int{0, 10, 100, 70_000, len(sealed) - 1} {
		if _, err := openStream(sealed[:n], Unlock{Identities: first.String()}); !errors.Is(err, ErrSealed) {
			t.Errorf("cut to %d bytes: %v", n, err)
		}
	}
	for _, at := range []int{5, 600, 70_000, len(sealed) - 1} {
		b := bytes.Clone(sealed)
		b[at] ^= 1
		if _, err := openStream(b, Unlock{Identities: first.String()}); !errors.Is(err, ErrSealed) && !errors.Is(err, ErrRecipient) {
			t.Errorf("byte %d changed: %v", at, err)
		}
	}
}

func TestStreamUnderAPassphrase(t *testing.T) {
	sealed := sealStream(t, Lock{Passphrase: "correct horse"}, []byte("plain"))
	if got, err := openStream(sealed, Unlock{Passphrase: "correct horse"}); err != nil || string(got) != "plain" {
		t.Errorf("%q, %v", got, err)
	}
	sealed = sealStream(t, Lock{Passphrase: "correct horse", Work: 4}, []byte("plain")) // not another second
	if got, err := openStream(sealed, Unlock{Passphrase: "correct horse"}); err != nil || string(got) != "plain" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := openStream(sealed, Unlock{Passphrase: "battery staple"}); !errors.Is(err, ErrRecipient) {
		t.Errorf("a wrong passphrase: %v", err)
	}
}

func TestStreamNeedsOneLock(t *testing.T) {
	id := newIdentity(t)
	for name, lock := range map[string]Lock{
		"none": {}, "both": {Recipients: []string{id.Recipient().String()}, Passphrase: "x"},
		"no recipient": {Recipients: []string{"age1nobody"}},
	} {
		if _, err := SealStream(io.Discard, lock); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	for name, unlock := range map[string]Unlock{"none": {}, "both": {Identities: id.String(), Passphrase: "x"}, "damaged": {Identities: id.String()[:40]}} {
		_, err := OpenStream(strings.NewReader(""), unlock)
		if err == nil || strings.Contains(err.Error(), id.String()[:30]) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
