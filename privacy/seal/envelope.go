package seal

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"

	"choir.example/internal/canon"

	"filippo.io/age"
)

// ErrRecipient is returned when an envelope is not for the key that tries to open it, or was sealed to others than its
// signature says.
var ErrRecipient = errors.New("envelope is not for this recipient")

// EpochKey is a voter's decryption key for an epoch. Once it is destroyed, nothing sealed to it can be opened again.
type EpochKey struct {
	Epoch uint64
	id    *age.X25519Identity
}

// NewEpochKey makes a key; age draws it from the operating system.
func NewEpochKey(epoch uint64) (*EpochKey, error) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return nil, fmt.Errorf("make epoch key: %w", err)
	}
	return &EpochKey{epoch, id}, nil
}

// Encode is the secret key, for keeping under a Box.
func (k *EpochKey) Encode() []byte {
	var w canon.Writer
	w.Uint(k.Epoch)
	w.String(k.id.String())
	return w.Buf
}

// DecodeEpochKey reads what Encode wrote.
func DecodeEpochKey(b []byte) (*EpochKey, error) {
	r := canon.NewReader(b)
	epoch, text := r.Uint(), r.String()
	if err := r.Close(); err != nil {
		return nil, fmt.Errorf("decode epoch key: %w", err)
	}
	id, err := age.ParseX25519Identity(text)
	if err != nil {
		return nil, fmt.Errorf("decode epoch key: %w", err)
	}
	return &EpochKey{epoch, id}, nil
}

// Recipient is the public half, as age writes it.
func (k *EpochKey) Recipient() string { return k.id.Recipient().String() }

const (
	domainEpoch    = "choir/epoch/v1"
	domainUpdate   = "choir/update/v1"
	domainEnvelope = "choir/envelope/v1"
)

func epochMessage(cluster, coordinator string, epoch uint64, recipient string) []byte {
	var w canon.Writer
	w.String(cluster)
	w.String(coordinator)
	w.Uint(epoch)
	w.String(recipient)
	return w.Buf
}

// Sign signs the public half with the voter's certified key.
func (k *EpochKey) Sign(cluster, coordinator string, by ed25519.PrivateKey) []byte {
	return Sign(by, domainEpoch, epochMessage(cluster, coordinator, k.Epoch, k.Recipient()))
}

// VerifyEpochKey checks that the coordinator's certified key signed the recipient for the epoch.
func VerifyEpochKey(key ed25519.PublicKey, cluster, coordinator string, epoch uint64, recipient string, sig []byte) bool {
	return Verify(key, domainEpoch, epochMessage(cluster, coordinator, epoch, recipient), sig)
}

// UpdateDigest is an update's identity: SHA-256 over a domain string and the signed payload. Recipients are not in it,
// so an update can be sealed anew when the voters change.
func UpdateDigest(payload []byte) [32]byte {
	h := sha256.New()
	h.Write([]byte(domainUpdate))
	h.Write(payload)
	return [32]byte(h.Sum(nil))
}

// envelopeMessage binds an update to the recipients it is sealed to, sorted.
func envelopeMessage(digest [32]byte, recipients []string) []byte {
	var w canon.Writer
	w.Fixed(digest[:])
	w.Uint(uint64(len(recipients)))
	for _, r := range recipients {
		w.String(r)
	}
	return w.Buf
}

// SealUpdate signs a payload, signs its digest again together with the recipients, and encrypts all of it to them.
// payload is not kept.
func SealUpdate(payload []byte, key ed25519.PrivateKey, recipients []string) (envelope []byte, digest [32]byte, err error) {
	recipients = slices.Sorted(slices.Values(recipients))
	digest = UpdateDigest(payload)
	var w canon.Writer
	w.Buf = make([]byte, 0, 512+128*len(recipients))
	w.Uint(1)
	w.Uint(uint64(len(recipients)))
	for _, r := range recipients {
		w.String(r)
	}
	w.Fixed(Sign(key, domainUpdate, digest[:]))
	w.Fixed(Sign(key, domainEnvelope, envelopeMessage(digest, recipients)))
	w.Uint(uint64(len(payload)))
	envelope, err = sealTo(recipients, w.Buf, payload)
	return envelope, digest, err
}

// SignedUpdate is an opened envelope whose signatures are not checked yet: who signed stands in the payload.
type SignedUpdate struct {
	Payload    []byte
	Digest     [32]byte
	recipients []string
	signature  []byte // over the digest
	envelope   []byte // over the digest and the recipients
	opener     string
}

// DecryptUpdate opens an envelope with an epoch key.
func DecryptUpdate(envelope []byte, key *EpochKey) (*SignedUpdate, error) {
	plain, err := OpenFrom(envelope, key)
	if err != nil {
		return nil, err
	}
	r := canon.NewReader(plain)
	if v := r.Uint(); r.Err() == nil && v != 1 {
		return nil, fmt.Errorf("open envelope: version %d is not known", v)
	}
	u := &SignedUpdate{opener: key.Recipient()}
	for n := r.Len(1); len(u.recipients) < n && r.Err() == nil; {
		u.recipients = append(u.recipients, r.String())
	}
	u.signature, u.envelope = r.Fixed(ed25519.SignatureSize), r.Fixed(ed25519.SignatureSize)
	u.Payload = r.Bytes()
	if err := r.Close(); err != nil {
		return nil, fmt.Errorf("open envelope: %w", err)
	}
	u.Digest = UpdateDigest(u.Payload)
	return u, nil
}

// Verify checks both signatures against the enrolled key of the node that the payload names, and that whoever opened
// the envelope is among the signed recipients.
func (u *SignedUpdate) Verify(key ed25519.PublicKey) error {
	if !Verify(key, domainUpdate, u.Digest[:], u.signature) {
		return fmt.Errorf("update: %w", ErrSignature)
	}
	if !slices.IsSorted(u.recipients) || !Verify(key, domainEnvelope, envelopeMessage(u.Digest, u.recipients), u.envelope) {
		return fmt.Errorf("envelope: %w", ErrSignature)
	}
	if !slices.Contains(u.recipients, u.opener) {
		return ErrRecipient
	}
	return nil
}

// SealTo encrypts bytes to age recipients.
func SealTo(plain []byte, recipients []string) ([]byte, error) { return sealTo(recipients, plain) }

func sealTo(recipients []string, parts ...[]byte) ([]byte, error) {
	if len(recipients) == 0 {
		return nil, fmt.Errorf("seal: no recipients")
	}
	var to []age.Recipient
	size := 200 * (len(recipients) + 1)
	for _, text := range recipients {
		r, err := age.ParseX25519Recipient(text)
		if err != nil {
			return nil, fmt.Errorf("seal to %q: %w", text, err)
		}
		to = append(to, r)
	}
	for _, p := range parts {
		size += len(p) + len(p)/4096 + 64
	}
	out := bytes.NewBuffer(make([]byte, 0, size))
	w, err := age.Encrypt(out, to...)
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	for _, p := range parts {
		if _, err := w.Write(p); err != nil {
			return nil, fmt.Errorf("seal: %w", err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	return out.Bytes(), nil
}

// OpenFrom decrypts what was sealed to an epoch key.
func OpenFrom(sealed []byte, key *EpochKey) ([]byte, error) {
	r, err := age.Decrypt(bytes.NewReader(sealed), key.id)
	var other *age.NoIdentityMatchError
	if errors.As(err, &other) {
		return nil, ErrRecipient
	}
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	plain := bytes.NewBuffer(make([]byte, 0, len(sealed)))
	if _, err := io.Copy(plain, r); err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	return plain.Bytes(), nil
}
