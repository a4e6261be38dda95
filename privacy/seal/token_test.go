package seal

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

func newToken(t testing.TB) *Token {
	t.Helper()
	token, err := NewToken(RoleNode, Fingerprint([]byte("root")), []string{"10.0.0.1:7000", "c2.example:7000"},
		map[string]string{"region": "7", "kind": "till", "": "empty"}, noon.Add(90*time.Minute+1500*time.Microsecond), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestTokenRoundTrip(t *testing.T) {
	token := newToken(t)
	text := token.String()
	for _, written := range []string{text, text + "\n", " \t" + text + "\r\n"} {
		got, err := ParseToken(written)
		if err != nil {
			t.Fatal(err)
		}
		if got.ID != token.ID || !bytes.Equal(got.Secret, token.Secret) || got.Root != token.Root || got.Role != token.Role ||
			!slices.Equal(got.Addresses, token.Addresses) || !maps.Equal(got.Labels, token.Labels) || !got.Expires.Equal(token.Expires) {
			t.Errorf("got %+v, want %+v", got, token)
		}
		if got.SecretHash() != token.SecretHash() || got.String() != text {
			t.Error("the token changed on its way")
		}
	}
	if strings.ContainsAny(text, " \n+/=") || !strings.HasPrefix(text, "choir-token-1.") {
		t.Errorf("token %q does not fit on a line", text)
	}
	if other := newToken(t); other.ID == token.ID || bytes.Equal(other.Secret, token.Secret) {
		t.Error("two tokens share id or secret")
	}
}

func TestTokenExpires(t *testing.T) {
	token := newToken(t)
	if err := token.Check(token.Expires.Add(-time.Millisecond)); err != nil {
		t.Error(err)
	}
	for _, at := range []time.Time{token.Expires, token.Expires.Add(time.Hour)} {
		if err := token.Check(at); !errors.Is(err, ErrExpired) || !strings.Contains(err.Error(), token.ID) {
			t.Errorf("at %s: %v", at, err)
		}
	}
}

func TestParseTokenRefuses(t *testing.T) {
	text := newToken(t).String()
	for name, c := range map[string]struct{ text, message string }{
		"nothing":       {"", "does not start with"},
		"other text":    {"hello", "does not start with"},
		"prefix alone":  {tokenPrefix, "cut or damaged"},
		"other version": {strings.Replace(text, "-1.", "-2.", 1), "does not start with"},
		"padding":       {text + "=", "cut or damaged"},
		"two tokens":    {text + " " + text, "cut or damaged"},
		"mistyped":      {text[:20] + "A" + text[20:], "cut or"},
		"certificate":   {"-----BEGIN CERTIFICATE-----", "does not start with"},
	} {
		if _, err := ParseToken(c.text); !errors.Is(err, ErrToken) || !strings.Contains(err.Error(), c.message) {
			t.Errorf("%s: %v, want %q", name, err, c.message)
		}
	}
	for cut := range len(text) {
		if _, err := ParseToken(text[:cut]); !errors.Is(err, ErrToken) {
			t.Fatalf("cut to %d characters: %v", cut, err)
		}
	}
	// Every other character at every place is noticed.
	for i := range text {
		for _, c := range "Ab9-_. \n" {
			changed := text[:i] + string(c) + text[i+1:]
			if _, err := ParseToken(changed); changed != text && strings.TrimSpace(changed) != text && !errors.Is(err, ErrToken) {
				t.Fatalf("%q at %d: %v", c, i, err)
			}
		}
	}
}

// A right checksum does not make a token: it must be one that could admit somebody.
func TestTokenMustMakeSense(t *testing.T) {
	for name, spoil := range map[string]func(*Token){
		"no id":        func(t *Token) { t.ID = "" },
		"short secret": func(t *Token) { t.Secret = t.Secret[:31] },
		"no secret":    func(t *Token) { t.Secret = nil },
		"root":         func(t *Token) { t.Root = "abcd" },
		"root not hex": func(t *Token) { t.Root = strings.Repeat("z", 64) },
		"role":         func(t *Token) { t.Role = "king" },
		"no role":      func(t *Token) { t.Role = RoleNone },
		"no address":   func(t *Token) { t.Addresses = nil },
	} {
		token := newToken(t)
		spoil(token)
		if _, err := ParseToken(token.String()); !errors.Is(err, ErrToken) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := NewToken(RoleNode, "not a fingerprint", []string{"a:1"}, nil, noon, rand.Reader); err == nil {
		t.Error("NewToken took a root that is no fingerprint")
	}
	if _, err := NewToken(RoleNode, Fingerprint(nil), []string{"a:1"}, nil, noon, bytes.NewReader(nil)); err == nil {
		t.Error("NewToken made a secret without randomness")
	}
}

func TestLogsDoNotShowTheSecret(t *testing.T) {
	token := newToken(t)
	var out bytes.Buffer
	slog.New(slog.NewJSONHandler(&out, nil)).Info("enrol", "token", token)
	secret := base64.RawURLEncoding.EncodeToString(token.Secret[:24])
	if s := out.String(); !strings.Contains(s, token.ID) || strings.Contains(s, tokenPrefix) || strings.Contains(s, secret) {
		t.Errorf("log line %s", s)
	}
}

func FuzzParseToken(f *testing.F) {
	token := newToken(f)
	f.Add(token.String())
	token.Labels = nil
	f.Add(token.String())
	f.Add(tokenPrefix)
	f.Add(token.String()[:60])
	f.Fuzz(func(t *testing.T, text string) {
		token, err := ParseToken(text)
		if err != nil {
			if !errors.Is(err, ErrToken) {
				t.Fatalf("error %v is no ErrToken", err)
			}
			return
		}
		if token.String() != strings.TrimSpace(text) {
			t.Fatalf("%q reads as %q", text, token)
		}
	})
}

// Officers' keys stand at a token's end; a token without any is written as it always was.
func TestTokenTellsOfOfficers(t *testing.T) {
	token := newToken(t)
	plain := token.String()
	token.Officers = [][]byte{bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32)}
	got, err := ParseToken(token.String())
	if err != nil || !slices.EqualFunc(got.Officers, token.Officers, bytes.Equal) {
		t.Errorf("%+v, %v", got, err)
	}
	if old, err := ParseToken(plain); err != nil || len(old.Officers) > 0 || old.String() != plain {
		t.Errorf("a token from before: %+v, %v", old, err)
	}
	token.Officers = [][]byte{{1}}
	if _, err := ParseToken(token.String()); !errors.Is(err, ErrToken) {
		t.Errorf("half a key: %v", err)
	}
}
