package seal

import (
	"fmt"
	"io"

	"golang.org/x/crypto/chacha20poly1305"
)

// NewKey draws a key of its own for something that may have to be erased: once the key is destroyed, what was sealed
// under it opens no more, whatever else is left. A key that Sub derives cannot be destroyed alone.
func (b *Box) NewKey() []byte {
	key := make([]byte, chacha20poly1305.KeySize)
	if _, err := io.ReadFull(b.rand, key); err != nil {
		panic(fmt.Sprintf("seal: no randomness: %v", err)) // the operating system's source does not fail
	}
	return key
}

// Under returns a box that seals under a key from NewKey.
func (b *Box) Under(key []byte) (*Box, error) { return newBox(key, b.rand) }
