package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"choir.example/model/data"
	"choir.example/node"
	"choir.example/privacy/seal"
)

// dataCommand is `choir data`.
type dataCommand struct {
	Import   dataImport   `cmd:"" help:"Put a file's rows into the node's private store."`
	List     dataList     `cmd:"" help:"List what was imported."`
	Delete   dataDelete   `cmd:"" help:"Delete an import, and destroy its key."`
	Schema   dataSchema   `cmd:"" help:"Show what the rows look like, or set it."`
	Generate dataGenerate `cmd:"" help:"Make data up, to try things out."`
	Backup   dataBackup   `cmd:"" help:"Write the store as one age file."`
	Restore  dataRestore  `cmd:"" help:"Read a backup into a store without rows."`
}

// holding is a node's data: of one that runs, over its control socket, or of one that does not, by its store.
type holding interface {
	SetSchema(ctx context.Context, s *data.Schema) error
	Schema(ctx context.Context) (*data.Schema, error)
	List(ctx context.Context) ([]node.Import, error)
	Delete(ctx context.Context, id string) (node.Import, error)
	Import(ctx context.Context, file io.Reader, src node.Source) (node.Imported, error)
	ImportIDX(ctx context.Context, images io.Reader, length int64, labels io.Reader, src node.Source) (node.Imported, error)
	Backup(ctx context.Context, w io.Writer, lock seal.Lock) error
	Restore(ctx context.Context, file io.Reader, unlock seal.Unlock, size int64) ([]node.Import, error)
}

// open reaches the node's data. done gives them back.
func (n nodeFlag) open(ctx context.Context, t *terminal) (h holding, done func() error, err error) {
	file, err := n.file()
	if err != nil {
		return nil, nil, err
	}
	control, err := node.Control(ctx, file.Dir)
	if err == nil {
		return control, func() error { return nil }, nil
	}
	if !errors.Is(err, node.ErrNotRunning) {
		return nil, nil, err
	}
	box, err := node.DataKey(file.Dir, func(keys string) (*seal.Box, error) {
		if _, err := os.Stat(keys); err != nil {
			return nil, &hinted{fmt.Errorf("no node's directory: %w", err), "enrol the node first, or name its configuration with --config"}
		}
		return newKeyring(t, file.unseal()).open(keys)
	})
	if err != nil {
		return nil, nil, err
	}
	store, err := node.OpenStoreUnder(file.Dir, box)
	if err != nil {
		return nil, nil, err
	}
	return stoppedStore{store}, store.Close, nil
}

// stoppedStore is the store of a node that does not run.
type stoppedStore struct{ *node.Store }

func (s stoppedStore) SetSchema(_ context.Context, schema *data.Schema) error {
	return s.Store.SetSchema(schema)
}
func (s stoppedStore) Schema(context.Context) (*data.Schema, error) { return s.Store.Schema(), nil }
func (s stoppedStore) List(context.Context) ([]node.Import, error)  { return s.Store.List(), nil }
func (s stoppedStore) Delete(_ context.Context, id string) (node.Import, error) {
	return s.Store.Delete(id)
}
func (s stoppedStore) ImportIDX(ctx context.Context, images io.Reader, length int64, labels io.Reader, src node.Source) (node.Imported, error) {
	return s.Store.ImportIDX(ctx, io.LimitReader(images, length), labels, src)
}
func (s stoppedStore) Backup(ctx context.Context, w io.Writer, lock seal.Lock) error {
	return s.Store.Backup(ctx, w, lock, nil)
}
func (s stoppedStore) Restore(ctx context.Context, file io.Reader, unlock seal.Unlock, size int64) ([]node.Import, error) {
	return s.Store.Restore(ctx, file, unlock, size, nil)
}

// dataImport is `choir data import`.
type dataImport struct {
	nodeFlag
	outputFlag
	File         string `arg:"" help:"File of rows, or an IDX file of images with --labels." type:"path"`
	Format       string `help:"How the file is written: idx, csv, jsonl or text. Without it: idx with --labels, jsonl for a name that ends in .jsonl or .jsonl.gz, else csv." enum:"idx,csv,jsonl,text," default:""`
	Schema       string `help:"What the columns mean, YAML or JSON. Needed until the store has one." placeholder:"FILE" type:"path"`
	Part         string `help:"Put all rows into one part: train, validation or held. Without it they are divided." enum:"train,validation,held," default:""`
	Shares       string `help:"How rows are divided: train/validation/held out of 100. Default: 80/20/0." placeholder:"N/N/N"`
	Separator    string `help:"csv: between fields: a character, or tab. Without it the header tells." placeholder:"CHAR"`
	DecimalComma bool   `help:"csv: numbers are written 1,5."`
	SkipBad      int    `help:"csv, jsonl, text: count and leave out so many bad rows; with one more the file is refused." placeholder:"N"`
	Labels       string `help:"idx: file of labels; the file given is one of images." placeholder:"FILE" type:"path"`
	Positive     int    `help:"idx, with a boolean label: the one of 1 to 255 that counts as true. Without it labels are 0 and 1." placeholder:"N"`
}

// Help is what --help explains.
func (dataImport) Help() string {
	return `All rows or none: a bad row is named by line and column, and nothing is imported. The same file twice is a no-op; equal rows
within a file all count. An empty field is a missing value. csv has a header; jsonl is a JSON object a line; text is a label, a
tab and a text a line; idx is the format of MNIST. Texts are hashed to numbers, which is all that is kept of them. Which schema
each wants stands in docs/data.md. Works while the node runs. Without --config the node is the one
that enrolled first with this context; the answer names it.

Example: choir data import --schema shop.yaml sessions.csv`
}

// format is what --format says, or else the name of the file. It is empty for IDX.
func (c *dataImport) format() (data.Format, error) {
	format := c.Format
	if format == "" && c.Labels != "" {
		format = "idx"
	}
	format = cmp.Or(format, string(formatOf(c.File)))
	switch csv := c.Separator != "" || c.DecimalComma; {
	case (format == "idx") != (c.Labels != ""):
		return "", &usageError{"--format idx and --labels FILE go together", "images and labels are two files"}
	case csv && format != string(data.FormatCSV):
		return "", &usageError{"--separator and --decimal-comma are for --format csv", ""}
	case c.SkipBad != 0 && format == "idx":
		return "", &usageError{"--skip-bad is for rows; of images none is left out", ""}
	case c.Positive != 0 && format != "idx":
		return "", &usageError{"--positive is for --format idx", ""}
	case format == "idx":
		return "", nil
	}
	return data.Format(format), nil
}

// formatOf is how a file of rows is written, by its name.
func formatOf(path string) data.Format {
	if strings.HasSuffix(strings.TrimSuffix(path, ".gz"), ".jsonl") {
		return data.FormatJSONL
	}
	return data.FormatCSV
}

// source is how the file is read.
func (c *dataImport) source() (node.Source, error) {
	src := node.Source{Name: filepath.Base(c.File), Part: node.Part(c.Part), Positive: c.Positive, CSV: data.CSV{DecimalComma: c.DecimalComma, SkipBad: c.SkipBad}}
	if c.Labels != "" {
		src.Labels = filepath.Base(c.Labels)
	}
	switch {
	case c.Positive < 0 || c.Positive > 255:
		return src, &usageError{fmt.Sprintf("--positive is %d, want a label, 1 to 255", c.Positive), ""}
	case c.Part != "" && c.Shares != "":
		return src, &usageError{"--part and --shares exclude each other", "--part puts all rows into one part"}
	case c.SkipBad < 0:
		return src, &usageError{fmt.Sprintf("--skip-bad is %d, want a number of rows", c.SkipBad), ""}
	case c.Separator == "tab" || c.Separator == `\t`:
		src.CSV.Separator = '\t'
	case c.Separator != "" && !strings.Contains(",;|\t", c.Separator):
		return src, &usageError{fmt.Sprintf("--separator is %q, want , ; | or tab", c.Separator), ""}
	case c.Separator != "":
		src.CSV.Separator = rune(c.Separator[0])
	}
	var err error
	if src.Format, err = c.format(); err != nil {
		return src, err
	}
	if c.Shares == "" {
		return src, nil
	}
	if src.Shares, err = node.ParseShares(c.Shares); err != nil {
		return src, &usageError{"--shares: " + err.Error(), ""}
	}
	return src, nil
}

// Run imports a file.
func (c *dataImport) Run(ctx context.Context, t *terminal) (err error) {
	src, err := c.source()
	if err != nil {
		return err
	}
	file, size, err := openData(c.File)
	if err != nil {
		return err
	}
	defer file.Close()
	src.Size = size
	h, done, err := c.open(ctx, t)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	if err := c.setSchema(ctx, h); err != nil {
		return err
	}
	shown := newMeter(t.err, "importing "+src.Name)
	watched := &watchedFile{file: file, shown: shown, size: uint64(size)}
	var got node.Imported
	if c.Labels == "" {
		got, err = h.Import(ctx, watched, src)
	} else {
		got, err = c.importIDX(ctx, h, watched, size, src)
	}
	shown.finish()
	if ctx.Err() != nil {
		return errors.New("interrupted; nothing was imported")
	}
	if err != nil {
		return importHint(err)
	}
	for _, bad := range got.Skipped.First {
		fmt.Fprintf(t.err, "left out: %s\n", bad)
	}
	return c.report(t, got)
}

// report says what became of the file, and at which node: the context may know another than the one that was meant.
func (c *dataImport) report(t *terminal, got node.Imported) error {
	file, err := c.file()
	if err != nil {
		return err
	}
	if c.json() {
		return printJSON(t.out, struct {
			Node string `json:"node"`
			node.Imported
		}{file.Name, got})
	}
	_, err = fmt.Fprintf(t.out, "node %s: %s\n", file.Name, got)
	return err
}

func (c *dataImport) importIDX(ctx context.Context, h holding, images io.Reader, size int64, src node.Source) (node.Imported, error) {
	labels, _, err := openData(c.Labels)
	if err != nil {
		return node.Imported{}, err
	}
	defer labels.Close()
	return h.ImportIDX(ctx, images, size, labels, src)
}

// setSchema gives the store the schema, if one is named, and sees that it has one.
func (c *dataImport) setSchema(ctx context.Context, h holding) error {
	if c.Schema != "" {
		schema, err := readSchema(c.Schema)
		if err != nil {
			return err
		}
		return h.SetSchema(ctx, schema)
	}
	schema, err := h.Schema(ctx)
	if err == nil && schema == nil {
		err = &usageError{"the store has no schema yet", "say what the columns mean with --schema FILE; deploy/local/shop.yaml is an example"}
	}
	return err
}

// importHint adds the cure to an error about a file.
func importHint(err error) error {
	cure := ""
	switch text := err.Error(); {
	case errors.As(err, new(*hinted)), !strings.HasPrefix(text, "import "):
		return err // it is not of the file's contents
	case strings.Contains(text, "disk is full"):
		cure = "make room and import the file again"
	case strings.Contains(text, "decimal comma is read only"):
		cure = "--decimal-comma reads it"
	case strings.Contains(text, ", nor in its ignore"):
		cure = "correct the name, or list it under ignore in the schema"
	case errors.As(err, new(*data.BadRow)):
		cure = "correct the file, or leave bad rows out with --skip-bad N"
	default:
		cure = "is it the right file, in the right --format, for the right schema?"
	}
	return &hinted{err, "nothing was imported; " + cure}
}

func openData(path string) (*os.File, int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, missing("data", err)
	}
	info, err := f.Stat()
	if err == nil && info.IsDir() {
		err = fmt.Errorf("%s is a directory", path)
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, info.Size(), nil
}

// watchedFile tells a meter how far it was read. It can be read again from its start. The file has a name, because one
// that is embedded would lend its WriteTo, past Read, to whoever copies.
type watchedFile struct {
	file  *os.File
	shown *meter
	size  uint64
	done  uint64
}

func (w *watchedFile) Read(b []byte) (int, error) {
	n, err := w.file.Read(b)
	w.done += uint64(n)
	w.shown.bytes(min(w.done, w.size), w.size)
	return n, err
}

func (w *watchedFile) Seek(offset int64, whence int) (int64, error) {
	at, err := w.file.Seek(offset, whence)
	w.done = uint64(max(at, 0))
	return at, err
}

// dataList is `choir data list`.
type dataList struct {
	nodeFlag
	outputFlag
}

// Help is what --help explains.
func (dataList) Help() string { return "Example: choir data list" }

// Run lists imports.
func (c *dataList) Run(ctx context.Context, t *terminal) (err error) {
	h, done, err := c.open(ctx, t)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	all, err := h.List(ctx)
	if err != nil {
		return err
	}
	if c.json() {
		if all == nil {
			all = []node.Import{}
		}
		return printJSON(t.out, map[string]any{"imports": all})
	}
	return printImports(t.out, all)
}

func printImports(w io.Writer, all []node.Import) error {
	tab := newTable("IMPORT", "FILE", "TIME", "ROWS", "TRAIN", "VALIDATION", "HELD", "LEFT OUT", "SHA-256")
	for _, i := range all {
		tab.add(i.ID, i.File, i.Time.UTC().Format(time.RFC3339), i.Rows, i.Train, i.Validation, i.Held, i.Skipped, i.Digest[:min(len(i.Digest), 16)])
	}
	return tab.print(w, "nothing is imported")
}

// dataDelete is `choir data delete`.
type dataDelete struct {
	nodeFlag
	outputFlag
	ID  string `arg:"" help:"The import, as data list shows it."`
	Yes bool   `help:"Do not ask."`
}

// Help is what --help explains.
func (dataDelete) Help() string {
	return `The rows' key is destroyed: what is left on the disk, or in a copy of it, cannot be read again. Backups that were written
before still hold the rows.

Example: choir data delete 3f9a01bc --yes`
}

// Run deletes an import.
func (c *dataDelete) Run(ctx context.Context, t *terminal) (err error) {
	if !c.Yes {
		if ok, err := confirm(t, "delete import "+c.ID+" and destroy its key?"); err != nil || !ok {
			return orAbort(err)
		}
	}
	h, done, err := c.open(ctx, t)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	gone, err := h.Delete(ctx, c.ID)
	if err != nil {
		return &hinted{err, "choir data list shows the imports"}
	}
	if c.json() {
		return printJSON(t.out, gone)
	}
	_, err = fmt.Fprintf(t.out, "import %s is deleted: %d rows of %s\n", gone.ID, gone.Rows, gone.File)
	return err
}

// dataSchema is `choir data schema`.
type dataSchema struct {
	nodeFlag
	outputFlag
	File string `arg:"" optional:"" help:"Set this schema, YAML or JSON; the store must hold no rows of another." type:"path"`
}

// Help is what --help explains.
func (dataSchema) Help() string { return "Example: choir data schema shop.yaml" }

// Run shows or sets the schema.
func (c *dataSchema) Run(ctx context.Context, t *terminal) (err error) {
	h, done, err := c.open(ctx, t)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	if c.File != "" {
		schema, err := readSchema(c.File)
		if err != nil {
			return err
		}
		if err := h.SetSchema(ctx, schema); err != nil {
			return err
		}
	}
	schema, err := h.Schema(ctx)
	if err != nil {
		return err
	}
	if schema == nil {
		return &hinted{errors.New("the store has no schema yet"), "choir data schema FILE sets one; so does choir data import --schema FILE"}
	}
	if c.json() {
		return printJSON(t.out, schema)
	}
	fmt.Fprintf(t.out, "schema %s: a row is a %s; %s is predicted; digest %x\n", schema.Name, schema.Unit, schema.Label, schema.Digest())
	tab := newTable("COLUMN", "KIND", "VALUES", "REQUIRED")
	for _, col := range schema.Columns {
		tab.add(col.Name, col.Kind, columnValues(&col), map[bool]string{true: "yes", false: ""}[col.Required])
	}
	return tab.print(t.out, "no columns")
}

// columnValues says what values a column takes.
func columnValues(c *data.Column) string {
	switch c.Kind {
	case data.Numeric, data.ID:
		return fmt.Sprintf("%v to %v", c.Min, c.Max)
	case data.Text:
		return fmt.Sprintf("%d ids of 1 to %d", c.Length, c.Buckets)
	case data.Sequence:
		text := fmt.Sprintf("%d ids of 1 to %v", c.Length, c.Max)
		if c.Of != "" {
			text += fmt.Sprintf(", gathered from %s by %s", c.Of, c.By)
		}
		return text
	}
	return strings.Join(c.Categories, " ")
}
