package seal

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"choir.example/internal/canon"
)

// ErrToken is the error class of a text that is no token.
var ErrToken = errors.New("not a valid token")

const (
	tokenPrefix = "choir-token-1."
	tokenSecret = 32 // bytes
)

// Token is what a new node is handed: where to go, whom to trust, and a secret that admits it once.
type Token struct {
	ID        string
	Secret    []byte
	Root      string // fingerprint of the federation's root
	Addresses []string
	Labels    map[string]string
	Role      Role
	Expires   time.Time // to the millisecond
	Officers  [][]byte  // SHA-256 of the officers' public keys
}

// NewToken makes a token with a fresh id and a secret of 32 bytes, for addresses to try in this order.
func NewToken(role Role, root string, addresses []string, labels map[string]string, expires time.Time, rand io.Reader) (*Token, error) {
	b := make([]byte, 8+tokenSecret)
	if _, err := io.ReadFull(rand, b); err != nil {
		return nil, fmt.Errorf("make token: %w", err)
	}
	t := &Token{
		ID: hex.EncodeToString(b[:8]), Secret: b[8:], Root: root, Addresses: addresses, Labels: labels, Role: role,
		Expires: time.UnixMilli(expires.UnixMilli()),
	}
	if err := t.validate(); err != nil {
		return nil, fmt.Errorf("make token: %w", err)
	}
	return t, nil
}

// validate refuses a token that can admit nobody.
func (t *Token) validate() error {
	fingerprint, err := hex.DecodeString(t.Root)
	switch {
	case t.ID == "":
		return errors.New("it has no id")
	case len(t.Secret) != tokenSecret:
		return fmt.Errorf("its secret has %d bytes, want %d", len(t.Secret), tokenSecret)
	case err != nil || len(fingerprint) != sha256.Size:
		return fmt.Errorf("its root %q is not a fingerprint", t.Root)
	case t.Role == RoleNone || !slices.Contains(Roles(), t.Role):
		return fmt.Errorf("its role %q is not known", t.Role)
	case slices.ContainsFunc(t.Officers, func(key []byte) bool { return len(key) != sha256.Size }):
		return errors.New("it names an officer's key that is no SHA-256")
	case len(t.Addresses) == 0:
		return errors.New("it names no address")
	}
	return nil
}

// Check is ErrExpired when the token's time is over.
func (t *Token) Check(now time.Time) error {
	if !now.Before(t.Expires) {
		return fmt.Errorf("token %s expired at %s; ask the operator for a new one: %w",
			t.ID, t.Expires.UTC().Format(time.DateTime), ErrExpired)
	}
	return nil
}

// LogValue is what logs show of a token: its id, never its secret.
func (t *Token) LogValue() slog.Value { return slog.StringValue("token " + t.ID) }

// SecretHash is what the federation remembers of the secret.
func (t *Token) SecretHash() [32]byte { return sha256.Sum256(t.Secret) }

// String is the token as one line of text. Whoever reads it may use it: keep it out of logs and command lines.
func (t *Token) String() string {
	var w canon.Writer
	w.String(t.ID)
	w.Bytes(t.Secret)
	w.String(t.Root)
	w.Uint(uint64(len(t.Addresses)))
	for _, a := range t.Addresses {
		w.String(a)
	}
	w.Uint(uint64(len(t.Labels)))
	for _, k := range slices.Sorted(maps.Keys(t.Labels)) {
		w.String(k)
		w.String(t.Labels[k])
	}
	w.String(string(t.Role))
	w.Int(t.Expires.UnixMilli())
	if len(t.Officers) > 0 { // tokens from before have none, and are written as they were
		w.Uint(uint64(len(t.Officers)))
		for _, key := range t.Officers {
			w.Bytes(key)
		}
	}
	sum := sha256.Sum256(w.Buf)
	w.Fixed(sum[:8])
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(w.Buf)
}

// ParseToken reads what String wrote; white space around it is ignored.
func ParseToken(text string) (*Token, error) {
	body, ok := strings.CutPrefix(strings.TrimSpace(text), tokenPrefix)
	if !ok {
		return nil, fmt.Errorf("%w: it does not start with %q", ErrToken, tokenPrefix)
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(body)
	if err != nil || len(b) < 8 {
		return nil, fmt.Errorf("%w: it is cut or damaged", ErrToken)
	}
	b, check := b[:len(b)-8], b[len(b)-8:]
	if sum := sha256.Sum256(b); !bytes.Equal(sum[:8], check) {
		return nil, fmt.Errorf("%w: its checksum is wrong; it is cut or mistyped", ErrToken)
	}
	r := canon.NewReader(b)
	t := &Token{ID: r.String(), Secret: bytes.Clone(r.Bytes()), Root: r.String()}
	for n := r.Len(1); len(t.Addresses) < n && r.Err() == nil; {
		t.Addresses = append(t.Addresses, r.String())
	}
	for n := r.Len(2); n > 0 && r.Err() == nil; n-- {
		if t.Labels == nil {
			t.Labels = map[string]string{}
		}
		k := r.String()
		t.Labels[k] = r.String()
	}
	t.Role = Role(r.String())
	t.Expires = time.UnixMilli(r.Int())
	if r.More() {
		for n := r.Len(1); len(t.Officers) < n && r.Err() == nil; {
			t.Officers = append(t.Officers, bytes.Clone(r.Bytes()))
		}
	}
	if err := r.Close(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrToken, err)
	}
	if t.String() != tokenPrefix+body {
		return nil, fmt.Errorf("%w: it is not in its one spelling", ErrToken)
	}
	if err := t.validate(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrToken, err)
	}
	return t, nil
}
