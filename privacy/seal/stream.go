package seal

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"strings"

	"filippo.io/age"
)

// Lock says who can open a stream, such as a backup: the holders of age recipients' identities, or who knows a
// passphrase. It has one or the other.
type Lock struct {
	Recipients []string // age1…
	Passphrase string
	Work       int // of the passphrase: the binary logarithm of scrypt's rounds, for tests; 0: 18
}

// Unlock opens what a Lock closed.
type Unlock struct {
	Identities string // the text of an age identity file: AGE-SECRET-KEY-1… in lines
	Passphrase string
}

// streamWork is the work factor of a stream's passphrase: 2^18 scrypt rounds, about a second for each guess.
const streamWork = 18

// SealStream returns a writer that encrypts to w, with age: the file can be read by the age tool, too. Close ends the
// stream, without closing w; a stream without its end does not open.
func SealStream(w io.Writer, lock Lock) (io.WriteCloser, error) {
	to, err := lock.recipients()
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	out, err := age.Encrypt(w, to...)
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	return out, nil
}

func (l Lock) recipients() ([]age.Recipient, error) {
	if (len(l.Recipients) > 0) == (l.Passphrase != "") {
		return nil, errors.New("want either recipients or a passphrase")
	}
	if l.Passphrase != "" {
		to, err := age.NewScryptRecipient(l.Passphrase)
		if err != nil {
			return nil, err
		}
		to.SetWorkFactor(cmp.Or(l.Work, streamWork))
		return []age.Recipient{to}, nil
	}
	to, err := age.ParseRecipients(strings.NewReader(strings.Join(l.Recipients, "\n")))
	if err != nil {
		return nil, fmt.Errorf("recipients: %w", err)
	}
	return to, nil
}

// OpenStream returns a reader of what SealStream wrote. The wrong key is ErrRecipient; damage is ErrSealed, from here or
// from a Read: nothing that Read returned before is of use then. An end that is missing is damage.
func OpenStream(r io.Reader, unlock Unlock) (io.Reader, error) {
	by, err := unlock.identities()
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	plain, err := age.Decrypt(r, by...)
	if _, ok := errors.AsType[*age.NoIdentityMatchError](err); ok {
		return nil, fmt.Errorf("open: %w", ErrRecipient)
	}
	if err != nil {
		return nil, fmt.Errorf("open: %w: %w", ErrSealed, err)
	}
	return sealedReader{plain}, nil
}

func (u Unlock) identities() ([]age.Identity, error) {
	if (u.Identities != "") == (u.Passphrase != "") {
		return nil, errors.New("want either identities or a passphrase")
	}
	if u.Passphrase != "" {
		id, err := age.NewScryptIdentity(u.Passphrase)
		if err != nil {
			return nil, err
		}
		id.SetMaxWorkFactor(streamWork)
		return []age.Identity{id}, nil
	}
	by, err := age.ParseIdentities(bytes.NewReader([]byte(u.Identities)))
	if err != nil { // the library's text may hold a line of the file, which is secret
		return nil, errors.New("the identity file holds something else than age identities")
	}
	return by, nil
}

// sealedReader names what goes wrong while a stream is decrypted.
type sealedReader struct{ r io.Reader }

func (s sealedReader) Read(b []byte) (int, error) {
	n, err := s.r.Read(b)
	if err != nil && !errors.Is(err, io.EOF) {
		err = fmt.Errorf("%w: %w", ErrSealed, err)
	}
	return n, err
}
