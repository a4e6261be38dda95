package seal

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"choir.example/internal/canon"

	"filippo.io/age"
)

func newEpochKey(t testing.TB) *EpochKey {
	t.Helper()
	key, err := NewEpochKey(1)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// voters are epoch keys and their recipients.
func voters(t testing.TB, n int) (keys []*EpochKey, recipients []string) {
	for range n {
		key := newEpochKey(t)
		keys = append(keys, key)
		recipients = append(recipients, key.Recipient())
	}
	return keys, recipients
}

func sealUpdate(t testing.TB, payload []byte, key ed25519.PrivateKey, recipients []string) []byte {
	t.Helper()
	envelope, digest, err := SealUpdate(payload, key, recipients)
	if err != nil {
		t.Fatal(err)
	}
	if digest != UpdateDigest(payload) {
		t.Fatal("SealUpdate returned another digest")
	}
	return envelope
}

// open decrypts and verifies: what a coordinator does.
func open(envelope []byte, key *EpochKey, signer ed25519.PublicKey) (*SignedUpdate, error) {
	u, err := DecryptUpdate(envelope, key)
	if err != nil {
		return nil, err
	}
	return u, u.Verify(signer)
}

func TestEnvelopeOpensForEachVoter(t *testing.T) {
	signer := newKey(t)
	keys, recipients := voters(t, 5)
	given := slices.Clone(recipients)
	for _, n := range []int{0, 1, 255, 64 << 10, 200_001} {
		payload := bytes.Repeat([]byte{0xa5}, n)
		envelope := sealUpdate(t, payload, signer, recipients)
		for i, key := range keys {
			u, err := open(envelope, key, public(signer))
			if err != nil {
				t.Fatalf("%d bytes, voter %d: %v", n, i, err)
			}
			if !bytes.Equal(u.Payload, payload) || u.Digest != UpdateDigest(payload) {
				t.Errorf("%d bytes, voter %d: another payload", n, i)
			}
		}
		if _, err := DecryptUpdate(envelope, newEpochKey(t)); !errors.Is(err, ErrRecipient) {
			t.Errorf("a stranger: %v", err)
		}
	}
	if !slices.Equal(given, recipients) {
		t.Error("SealUpdate changed its argument")
	}
}

// The digest does not depend on the recipients: sealing anew for other voters is the same update.
func TestSealingAnewKeepsTheUpdate(t *testing.T) {
	signer, payload := newKey(t), []byte("payload")
	keys, recipients := voters(t, 3)
	first, err := open(sealUpdate(t, payload, signer, recipients[:2]), keys[0], public(signer))
	if err != nil {
		t.Fatal(err)
	}
	second, err := open(sealUpdate(t, payload, signer, recipients[1:]), keys[2], public(signer))
	if err != nil {
		t.Fatal(err)
	}
	if first.Digest != second.Digest || !bytes.Equal(first.signature, second.signature) {
		t.Error("the update changed with its recipients")
	}
	if bytes.Equal(first.envelope, second.envelope) {
		t.Error("the recipients are not signed")
	}
}

func TestRecipientsAreASet(t *testing.T) {
	signer := newKey(t)
	keys, r := voters(t, 2)
	u, err := open(sealUpdate(t, []byte("x"), signer, []string{r[1], r[0], r[1]}), keys[0], public(signer))
	if err != nil {
		t.Fatal(err)
	}
	if want := slices.Sorted(slices.Values(r)); !slices.Equal(u.recipients, want) {
		t.Errorf("recipients %q, want %q", u.recipients, want)
	}
}

func TestEveryBitOfAnEnvelopeMatters(t *testing.T) {
	signer := newKey(t)
	keys, recipients := voters(t, 2)
	envelope := sealUpdate(t, []byte("small"), signer, recipients)
	for bit := range len(envelope) * 8 {
		bad := bytes.Clone(envelope)
		bad[bit/8] ^= 1 << (bit % 8)
		if _, err := open(bad, keys[0], public(signer)); !errors.Is(err, ErrSealed) && !errors.Is(err, ErrRecipient) {
			t.Fatalf("bit %d of byte %d flipped: %v", bit%8, bit/8, err)
		}
	}
	for cut := range len(envelope) {
		if _, err := open(envelope[:cut], keys[0], public(signer)); !errors.Is(err, ErrSealed) {
			t.Fatalf("cut to %d: %v", cut, err)
		}
	}
	if _, err := open(append(bytes.Clone(envelope), 0), keys[0], public(signer)); !errors.Is(err, ErrSealed) {
		t.Error("a byte more was accepted")
	}
}

// Behind the encryption the signatures hold alone: a voter, who can decrypt, changes nothing unseen.
func TestEveryBitInsideAnEnvelopeMatters(t *testing.T) {
	signer := newKey(t)
	keys, recipients := voters(t, 2)
	plain, err := OpenFrom(sealUpdate(t, []byte("small"), signer, recipients), keys[0])
	if err != nil {
		t.Fatal(err)
	}
	for bit := range len(plain) * 8 {
		bad := bytes.Clone(plain)
		bad[bit/8] ^= 1 << (bit % 8)
		u, err := decodeEnvelope(bad)
		if err != nil {
			continue
		}
		u.opener = recipients[0]
		if u.Verify(public(signer)) == nil {
			t.Fatalf("bit %d of byte %d flipped inside: accepted", bit%8, bit/8)
		}
	}
}

func TestVerifyRefuses(t *testing.T) {
	signer, mallory := newKey(t), newKey(t)
	keys, recipients := voters(t, 3)
	sorted := slices.Sorted(slices.Values(recipients))
	payload := []byte("payload")
	digest := UpdateDigest(payload)
	update := Sign(signer, domainUpdate, digest[:])
	bound := Sign(signer, domainEnvelope, envelopeMessage(digest, sorted))
	none := make([]byte, ed25519.SignatureSize)
	outsider := newEpochKey(t)
	with := slices.Sorted(slices.Values(append(slices.Clone(recipients), outsider.Recipient())))
	for name, c := range map[string]struct {
		recipients       []string
		update, envelope []byte
		opener           *EpochKey
		want             error
	}{
		"right":                    {sorted, update, bound, keys[0], nil},
		"unsigned":                 {sorted, none, none, keys[0], ErrSignature},
		"update unsigned":          {sorted, none, bound, keys[0], ErrSignature},
		"envelope unsigned":        {sorted, update, none, keys[0], ErrSignature},
		"signatures exchanged":     {sorted, bound, update, keys[0], ErrSignature},
		"update by another":        {sorted, Sign(mallory, domainUpdate, digest[:]), bound, keys[0], ErrSignature},
		"envelope by another":      {sorted, update, Sign(mallory, domainEnvelope, envelopeMessage(digest, sorted)), keys[0], ErrSignature},
		"other domain":             {sorted, Sign(signer, "choir/receipt/v1", digest[:]), bound, keys[0], ErrSignature},
		"recipient added":          {with, update, bound, outsider, ErrSignature},
		"recipient dropped":        {sorted[:2], update, bound, keys[0], ErrSignature},
		"no recipients":            {nil, update, bound, keys[0], ErrSignature},
		"sealed on to an outsider": {sorted, update, bound, outsider, ErrRecipient},
	} {
		head := envelopeHead(c.recipients, c.update, c.envelope, len(payload))
		envelope, err := SealTo(slices.Concat(head, payload), []string{c.opener.Recipient()})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := open(envelope, c.opener, public(signer)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	envelope := sealUpdate(t, payload, signer, recipients)
	for name, key := range map[string]ed25519.PublicKey{"another node's": public(mallory), "none": nil} {
		if _, err := open(envelope, keys[1], key); !errors.Is(err, ErrSignature) {
			t.Errorf("under the key %s: %v", name, err)
		}
	}
}

func TestDecodeEnvelopeRefuses(t *testing.T) {
	sig := make([]byte, ed25519.SignatureSize)
	good := append(envelopeHead([]string{"a", "b"}, sig, sig, 2), "ok"...)
	if _, err := decodeEnvelope(good); err != nil {
		t.Fatal(err)
	}
	other := bytes.Clone(good)
	other[0] = envelopeVersion + 1
	huge := &canon.Writer{}
	huge.Uint(envelopeVersion)
	huge.Uint(1 << 60)
	for name, plain := range map[string][]byte{
		"nothing":         nil,
		"version":         other,
		"unsorted":        append(envelopeHead([]string{"b", "a"}, sig, sig, 2), "ok"...),
		"twice":           append(envelopeHead([]string{"a", "a"}, sig, sig, 2), "ok"...),
		"count":           huge.Buf,
		"longer":          append(bytes.Clone(good), 0),
		"shorter":         good[:len(good)-1],
		"short signature": envelopeHead([]string{"a"}, sig[:10], sig, 0),
	} {
		if _, err := decodeEnvelope(plain); err == nil {
			t.Errorf("%s: decoded", name)
		}
	}
}

func TestSealUpdateRefuses(t *testing.T) {
	signer := newKey(t)
	_, recipients := voters(t, 1)
	for name, to := range map[string][]string{
		"nobody": nil, "nonsense": {"nonsense"}, "empty": {""}, "half": {recipients[0], "age1"}, "ssh": {"ssh-ed25519 AAAA"},
	} {
		if _, _, err := SealUpdate([]byte("x"), signer, to); err == nil {
			t.Errorf("sealed to %s", name)
		}
	}
	if _, _, err := SealUpdate([]byte("x"), nil, recipients); err == nil {
		t.Error("sealed without a key")
	}
}

// A file whose header names thousands of recipients would cost a key operation each.
func TestOpenFromBoundsTheHeader(t *testing.T) {
	keys, recipients := voters(t, 100)
	sealed, err := SealTo([]byte("x"), recipients)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := OpenFrom(sealed, keys[99]); err != nil || string(got) != "x" {
		t.Errorf("a hundred recipients: %v", err)
	}
	recipient, err := age.ParseX25519Recipient(recipients[0])
	if err != nil {
		t.Fatal(err)
	}
	crowd := slices.Repeat([]age.Recipient{recipient}, 400)
	var out bytes.Buffer
	w, err := age.Encrypt(&out, crowd...)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, "x"); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenFrom(out.Bytes(), keys[0]); !errors.Is(err, ErrSealed) || !strings.Contains(err.Error(), "header") {
		t.Errorf("a header of %d bytes: %v", out.Len(), err)
	}
}

func FuzzDecodeEnvelope(f *testing.F) {
	sig := bytes.Repeat([]byte{9}, ed25519.SignatureSize)
	f.Add(append(envelopeHead([]string{"a", "b"}, sig, sig, 3), "abc"...))
	f.Add(envelopeHead(nil, sig, sig, 0))
	f.Add([]byte{envelopeVersion, 0xff, 0xff, 0xff, 0x7f})
	f.Fuzz(func(t *testing.T, plain []byte) {
		u, err := decodeEnvelope(plain)
		if err != nil {
			return
		}
		again := append(envelopeHead(u.recipients, u.signature, u.envelope, len(u.Payload)), u.Payload...)
		if !bytes.Equal(again, plain) {
			t.Fatalf("%x encodes as %x", plain, again)
		}
	})
}

func FuzzDecryptUpdate(f *testing.F) {
	// Fixed keys: each fuzzing process runs this function anew, and must be able to open the others' inputs.
	var w canon.Writer
	w.Uint(1)
	w.String("AGE-SECRET-KEY-1JS6J3N5T6A9TYUMH4QNGF4XRM8D8H2P7NMFVNZT69HLP7UKMF5SS84F76C")
	key, err := DecodeEpochKey(w.Buf)
	if err != nil {
		f.Fatal(err)
	}
	signer := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{3}, ed25519.SeedSize))
	f.Add(sealUpdate(f, []byte("payload"), signer, []string{key.Recipient()}))
	f.Add([]byte("age-encryption.org/v1\n--- \n"))
	f.Fuzz(func(t *testing.T, envelope []byte) {
		if u, err := open(envelope, key, public(signer)); err == nil && string(u.Payload) != "payload" {
			t.Fatalf("opened %q, which nobody signed", u.Payload)
		}
	})
}

// updateBytes is an update of a million parameters at four bytes each.
const updateBytes = 4 << 20

func BenchmarkSealUpdate(b *testing.B) {
	signer, payload := newKey(b), make([]byte, updateBytes)
	_, recipients := voters(b, 3)
	b.SetBytes(updateBytes)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := SealUpdate(payload, signer, recipients); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpenUpdate(b *testing.B) {
	signer := newKey(b)
	keys, recipients := voters(b, 3)
	envelope := sealUpdate(b, make([]byte, updateBytes), signer, recipients)
	b.SetBytes(updateBytes)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := open(envelope, keys[2], public(signer)); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkAge is what BenchmarkSealUpdate and BenchmarkOpenUpdate cannot be faster than: age and one SHA-256.
func BenchmarkAge(b *testing.B) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		b.Fatal(err)
	}
	plain := make([]byte, updateBytes)
	var sealed bytes.Buffer
	b.Run("seal", func(b *testing.B) {
		b.SetBytes(updateBytes)
		for b.Loop() {
			UpdateDigest(plain)
			sealed.Reset()
			w, err := age.Encrypt(&sealed, id.Recipient(), id.Recipient(), id.Recipient())
			if err != nil {
				b.Fatal(err)
			}
			if _, err := w.Write(plain); err != nil {
				b.Fatal(err)
			}
			if err := w.Close(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("open", func(b *testing.B) {
		b.SetBytes(updateBytes)
		for b.Loop() {
			r, err := age.Decrypt(bytes.NewReader(sealed.Bytes()), id)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := io.ReadFull(r, plain); err != nil {
				b.Fatal(err)
			}
			UpdateDigest(plain)
		}
	})
}

func TestSealToRandomness(t *testing.T) {
	key := newEpochKey(t)
	plain := make([]byte, 100)
	if _, err := rand.Read(plain); err != nil {
		t.Fatal(err)
	}
	a, err := SealTo(plain, []string{key.Recipient()})
	if err != nil {
		t.Fatal(err)
	}
	b, err := SealTo(plain, []string{key.Recipient()})
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(a, b) || bytes.Contains(a, plain[:16]) {
		t.Error("sealed bytes repeat or show the plaintext")
	}
	if got, err := OpenFrom(b, key); err != nil || !bytes.Equal(got, plain) {
		t.Errorf("opened: %v", err)
	}
}
