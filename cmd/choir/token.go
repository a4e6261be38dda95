package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"choir.example/privacy/seal"
	choirv1 "choir.example/proto/choir/v1"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// tokenCommand is `choir token`.
type tokenCommand struct {
	Create tokenCreate `cmd:"" help:"Make tokens, each of which admits one node or coordinator once."`
	List   tokenList   `cmd:"" help:"List tokens and who used them."`
	Revoke tokenRevoke `cmd:"" help:"Make a token useless that was not used."`
}

// tokenCreate is `choir token create`.
type tokenCreate struct {
	contextFlag
	outputFlag
	Role   string            `help:"Whom it admits: ${enum}." enum:"node,coordinator" default:"node"`
	Label  map[string]string `help:"A label of the node, KEY=VALUE; may be given several times. Jobs choose nodes by labels." placeholder:"KEY=VALUE"`
	Expiry time.Duration     `help:"How long it may be used, at most 720h." default:"24h"`
	Count  uint32            `help:"How many tokens to make." default:"1"`
	Out    string            `help:"Write the token to FILE with mode 0600 instead of printing it; with --count to FILE-1, FILE-2 and so on." placeholder:"FILE" type:"path"`
}

// Help is what --help explains.
func (tokenCreate) Help() string {
	return `A token is one line of text: the root's fingerprint, the coordinators' addresses, a secret. Whoever has it can join
once, so keep it in a file that others cannot read and hand it over by a way you trust.

Example: choir token create --label region=north --expiry 2h --out n1.token`
}

// Run makes tokens.
func (c *tokenCreate) Run(ctx context.Context, t *terminal) error {
	if c.Count < 1 || c.Count > 1000 {
		return &usageError{fmt.Sprintf("--count is %d, want 1 to 1000", c.Count), ""}
	}
	if c.Expiry < time.Millisecond || c.Expiry > 30*24*time.Hour {
		return &usageError{fmt.Sprintf("--expiry is %v, want more than nothing and at most 720h", c.Expiry), ""}
	}
	for key, value := range c.Label {
		if key == "" || value == "" {
			return &usageError{fmt.Sprintf("--label is %s=%s, want a name and a value", key, value), "--label region=north"}
		}
	}
	files, err := c.files()
	if err != nil {
		return err
	}
	f, err := c.open(t)
	if err != nil {
		return err
	}
	reply, err := f.operators().CreateToken(ctx, &choirv1.CreateTokenRequest{
		LifetimeMs: uint64(c.Expiry / time.Millisecond), Labels: c.Label, Role: c.Role, Count: c.Count,
	})
	if err != nil {
		return said(err)
	}
	tokens := reply.Tokens
	if len(tokens) == 0 {
		tokens = []string{reply.Token}
	}
	if c.Out != "" {
		return c.write(t, tokens, files)
	}
	if onTerminal(t.out) {
		defer fmt.Fprintln(t.err, "hint: whoever has this line can join once; --out FILE writes it to a file of mode 0600")
	}
	return c.print(t, tokens, nil)
}

// files are those that the tokens will be written to. They are looked at before a token is made: the secret of one that
// cannot be written is lost.
func (c *tokenCreate) files() (files []string, err error) {
	if c.Out == "" {
		return nil, nil
	}
	for i := range c.Count {
		path := c.Out
		if c.Count > 1 {
			ext := filepath.Ext(c.Out)
			path = fmt.Sprintf("%s-%d%s", strings.TrimSuffix(c.Out, ext), i+1, ext)
		}
		if _, err := os.Lstat(path); err == nil {
			return nil, &hinted{fmt.Errorf("%s exists already", path), "name another file with --out; no token was made"}
		}
		files = append(files, path)
	}
	probe, err := os.CreateTemp(filepath.Dir(c.Out), ".token-*")
	if err != nil {
		return nil, &hinted{fmt.Errorf("write tokens: %w", err), "name a file in a directory that you may write to with --out; no token was made"}
	}
	return files, errors.Join(probe.Close(), os.Remove(probe.Name()))
}

// write puts each token into a file of its own.
func (c *tokenCreate) write(t *terminal, tokens, files []string) error {
	if len(files) != len(tokens) {
		return fmt.Errorf("%d tokens came, want %d", len(tokens), len(files))
	}
	for i, token := range tokens {
		if err := seal.WriteFile(files[i], []byte(token+"\n")); err != nil {
			return err
		}
	}
	return c.print(t, tokens, files)
}

func (c *tokenCreate) print(t *terminal, tokens, files []string) error {
	type made struct {
		ID      string `json:"id"`
		Token   string `json:"token,omitempty"`
		File    string `json:"file,omitempty"`
		Expires string `json:"expires"`
	}
	all := []made{}
	for i, text := range tokens {
		token, err := seal.ParseToken(text)
		if err != nil {
			return fmt.Errorf("the coordinator's answer: %w", err)
		}
		m := made{ID: token.ID, Token: text, Expires: token.Expires.UTC().Format(time.RFC3339)}
		if files != nil {
			m.Token, m.File = "", files[i]
		}
		all = append(all, m)
	}
	if c.json() {
		return printJSON(t.out, map[string]any{"tokens": all})
	}
	for _, m := range all {
		line := m.Token
		if m.File != "" {
			line = m.File
		}
		if _, err := fmt.Fprintln(t.out, line); err != nil {
			return err
		}
	}
	return nil
}

// tokenList is `choir token list`.
type tokenList struct {
	contextFlag
	outputFlag
}

// Help is what --help explains.
func (tokenList) Help() string { return "Example: choir token list" }

// Run lists tokens.
func (c *tokenList) Run(ctx context.Context, t *terminal) error {
	f, err := c.open(t)
	if err != nil {
		return err
	}
	reply, err := f.operators().ListTokens(ctx, &choirv1.ListTokensRequest{})
	if err != nil {
		return said(err)
	}
	type row struct {
		ID       string            `json:"id"`
		Role     string            `json:"role"`
		Labels   map[string]string `json:"labels"`
		Expires  string            `json:"expires"`
		State    string            `json:"state"`
		UsedBy   string            `json:"used_by"`
		Incident bool              `json:"incident"`
	}
	rows := []row{}
	tab := newTable("TOKEN", "ROLE", "STATE", "USED BY", "EXPIRES", "LABELS")
	for _, k := range reply.Tokens {
		r := row{ID: k.Id, Role: k.Role, Labels: k.Labels, Expires: day(k.ExpiresMs), State: tokenState(k, now()), UsedBy: k.UsedBy, Incident: k.Incident}
		if r.Labels == nil {
			r.Labels = map[string]string{}
		}
		rows = append(rows, r)
		tab.add(r.ID, r.Role, r.State, r.UsedBy, r.Expires, pairs(k.Labels))
	}
	if c.json() {
		return printJSON(t.out, map[string]any{"tokens": rows})
	}
	return tab.print(t.out, "no tokens")
}

func tokenState(k *choirv1.TokenStatus, now time.Time) string {
	switch {
	case k.Incident:
		return "incident"
	case k.Revoked:
		return "revoked"
	case k.UsedBy != "":
		return "used"
	case now.UnixMilli() >= k.ExpiresMs:
		return "expired"
	}
	return "open"
}

// tokenRevokeError adds the cure to what a coordinator says about a token that it does not revoke.
func tokenRevokeError(err error) error {
	switch status.Code(err) {
	case codes.NotFound:
		return &hinted{said(err), "choir token list shows the tokens"}
	case codes.FailedPrecondition:
		return &hinted{said(err), "who is in goes by name: choir cluster revoke NODE, or choir cluster remove COORDINATOR"}
	}
	return said(err)
}

// tokenRevoke is `choir token revoke`.
type tokenRevoke struct {
	contextFlag
	outputFlag
	ID string `arg:"" help:"The token's id, as token list shows it."`
}

// Help is what --help explains.
func (tokenRevoke) Help() string { return "Example: choir token revoke 4f1c09ab77d2e310" }

// Run revokes a token.
func (c *tokenRevoke) Run(ctx context.Context, t *terminal) error {
	f, err := c.open(t)
	if err != nil {
		return err
	}
	if _, err := f.operators().RevokeToken(ctx, &choirv1.RevokeTokenRequest{Id: c.ID}); err != nil {
		return tokenRevokeError(err)
	}
	return c.tell(t, t.err, map[string]any{"id": c.ID, "state": "revoked"}, "token %s is revoked", c.ID)
}
