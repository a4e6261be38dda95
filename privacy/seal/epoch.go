package seal

import (
	"crypto/ed25519"
	"fmt"

	"choir.example/internal/canon"

	"filippo.io/age"
)

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

const domainEpoch = "choir/epoch/v1"

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
