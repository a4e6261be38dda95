package node

import (
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"choir.example/privacy/seal"
)

// TokenFile, in the node's directory, holds the bearer token for feedback, and for everything beyond loopback.
const TokenFile = "http.token"

var errToken = errors.New("the bearer token is missing or wrong: send \"Authorization: Bearer …\" with the contents of " + TokenFile + " in the node's directory")

// token is what a caller over TCP has to show.
type token string

// openToken reads the token, and makes one at the first start.
func openToken(dir string, rand io.Reader) (token, error) {
	path := filepath.Join(dir, TokenFile)
	b, err := seal.ReadPrivate(path)
	if errors.Is(err, os.ErrNotExist) {
		return newToken(path, rand)
	}
	if err != nil {
		return "", fmt.Errorf("read token: %w", err)
	}
	text := strings.TrimSpace(string(b))
	if len(text) < 32 {
		return "", fmt.Errorf("token %s: %d characters, want at least 32; remove it for a new one", path, len(text))
	}
	return token(text), nil
}

func newToken(path string, rand io.Reader) (token, error) {
	b := make([]byte, 32)
	if _, err := io.ReadFull(rand, b); err != nil {
		return "", fmt.Errorf("make token: %w", err)
	}
	text := hex.EncodeToString(b)
	return token(text), seal.WriteFile(path, []byte(text+"\n"))
}

// opens reports whether a request shows the token.
func (t token) opens(r *http.Request) bool {
	shown, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	return ok && t != "" && subtle.ConstantTimeCompare([]byte(shown), []byte(t)) == 1
}
