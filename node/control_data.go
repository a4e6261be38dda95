package node

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"choir.example/model/data"
	"choir.example/privacy/seal"
)

// What changes the data of a running node goes over its control socket. A request's body is one line of JSON, which says
// what is wanted, and then the file, if there is one.

// Order is an import over the control socket: a Source without its Progress.
type Order struct {
	Name       string      `json:"name"`                  // of the file
	LabelsName string      `json:"labels_name,omitempty"` // name of an IDX file's file of labels
	Part       Part        `json:"part,omitempty"`        // that all rows go to; empty: divided by Shares
	Shares     Shares      `json:"shares"`                // without Part; zero: DefaultShares
	Format     data.Format `json:"format,omitempty"`      // of the file; empty: CSV
	CSV        data.CSV    `json:"csv"`                   // how a CSV file is written, and bad rows of any
	Positive   int         `json:"positive,omitempty"`    // of an IDX file: the label that counts as true; 0: labels are 0 and 1
	Size       int64       `json:"size,omitempty"`        // bytes of the file; 0: not known
	Labels     int64       `json:"labels,omitempty"`      // of the body's bytes the first so many are an IDX file of labels, the rest its images
}

func (o Order) source() Source {
	return Source{Name: o.Name, Labels: o.LabelsName, Part: o.Part, Shares: o.Shares, Format: o.Format, CSV: o.CSV, Positive: o.Positive, Size: o.Size}
}

// serveData adds the paths of the data.
func (n *Node) serveData(mux *http.ServeMux) {
	mux.HandleFunc("GET /v1/data/schema", answering(func(*http.Request) (any, error) { return n.store.Schema(), nil }))
	mux.HandleFunc("POST /v1/data/schema", answering(n.controlSchema))
	mux.HandleFunc("GET /v1/data/list", answering(func(*http.Request) (any, error) { return n.store.List(), nil }))
	mux.HandleFunc("POST /v1/data/delete", answering(func(r *http.Request) (any, error) { return n.store.Delete(r.URL.Query().Get("id")) }))
	mux.HandleFunc("POST /v1/data/import", answering(n.takeImport))
	mux.HandleFunc("POST /v1/data/backup", n.giveBackup)
	mux.HandleFunc("POST /v1/data/restore", answering(n.takeBackup))
}

// ordered reads the line of JSON; what follows it is the file. The file is read to its end also when it is refused:
// otherwise the caller, who still sends, would not hear why.
func ordered(r *http.Request, what any) (file *bufio.Reader, drain func(), err error) {
	file = bufio.NewReaderSize(r.Body, 64<<10)
	line, err := file.ReadSlice('\n')
	if err == nil {
		err = json.Unmarshal(line, what)
	}
	if err != nil {
		err = fmt.Errorf("read the request: %w", err)
	}
	return file, func() { _, _ = io.Copy(io.Discard, file) }, err
}

func (n *Node) takeImport(r *http.Request) (any, error) {
	var o Order
	file, drain, err := ordered(r, &o)
	defer drain()
	if err != nil {
		return nil, err
	}
	if o.Labels > 0 {
		labels, err := readLabels(io.LimitReader(file, o.Labels))
		if err != nil {
			return nil, err
		}
		return n.store.ImportIDX(r.Context(), file, bytes.NewReader(labels), o.source())
	}
	return n.store.Import(r.Context(), file, o.source())
}

// maxLabels is the longest file of labels, which is held in memory: images and labels are read side by side.
const maxLabels = 64 << 20

func readLabels(r io.Reader) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxLabels+1))
	if err == nil && len(b) > maxLabels {
		err = fmt.Errorf("the file of labels is longer than %d bytes", maxLabels)
	}
	return b, err
}

func (n *Node) giveBackup(w http.ResponseWriter, r *http.Request) {
	var lock seal.Lock
	_, _, err := ordered(r, &lock)
	if err != nil {
		refuse(w, http.StatusUnprocessableEntity, err)
		return
	}
	out := &begun{w: w}
	if err := n.store.Backup(r.Context(), out, lock, nil); err != nil {
		if out.yes {
			n.deps.Log.Error("backup ended early", "error", err)
			panic(http.ErrAbortHandler) // the caller sees that the stream broke
		}
		refuse(w, http.StatusUnprocessableEntity, err)
	}
}

// begun knows whether anything was written.
type begun struct {
	w   io.Writer
	yes bool
}

func (b *begun) Write(p []byte) (int, error) {
	b.yes = true
	return b.w.Write(p)
}

func (n *Node) takeBackup(r *http.Request) (any, error) {
	var o struct {
		Unlock seal.Unlock
		Size   int64
	}
	file, drain, err := ordered(r, &o)
	defer drain()
	if err != nil {
		return nil, err
	}
	return n.store.Restore(r.Context(), file, o.Unlock, o.Size, nil)
}

// order is a request's body.
func order(what any, file io.Reader) (io.Reader, error) {
	b, err := json.Marshal(what)
	if err != nil {
		return nil, err
	}
	return io.MultiReader(bytes.NewReader(append(b, '\n')), file), nil
}

// SetSchema fixes what the node's rows look like, as Store.SetSchema does.
func (c *Controller) SetSchema(ctx context.Context, schema *data.Schema) error {
	return c.call(ctx, http.MethodPost, "/v1/data/schema", bytes.NewReader(schema.Encode()), &struct{}{})
}

// List lists the imports, as Store.List does.
func (c *Controller) List(ctx context.Context) ([]Import, error) {
	var out []Import
	return out, c.call(ctx, http.MethodGet, "/v1/data/list", nil, &out)
}

// Delete deletes an import, as Store.Delete does. The id is one that List shows, or the start of one.
func (c *Controller) Delete(ctx context.Context, id string) (Import, error) {
	var out Import
	return out, c.call(ctx, http.MethodPost, "/v1/data/delete?id="+url.QueryEscape(id), nil, &out)
}

// Import imports a file, as Store.Import does. The source's Progress is not called.
func (c *Controller) Import(ctx context.Context, file io.Reader, src Source) (Imported, error) {
	return c.transfer(ctx, file, src, 0)
}

// ImportIDX imports images of a known length in bytes and their labels, as Store.ImportIDX does.
func (c *Controller) ImportIDX(ctx context.Context, images io.Reader, length int64, labels io.Reader, src Source) (Imported, error) {
	b, err := readLabels(labels)
	if err != nil {
		return Imported{}, err
	}
	if len(b) == 0 {
		return Imported{}, fmt.Errorf("import %s: the file of labels, %s, is empty", src.Name, src.Labels)
	}
	return c.transfer(ctx, io.MultiReader(bytes.NewReader(b), io.LimitReader(images, length)), src, int64(len(b)))
}

func (c *Controller) transfer(ctx context.Context, file io.Reader, src Source, labels int64) (out Imported, err error) {
	body, err := order(Order{Name: src.Name, LabelsName: src.Labels, Part: src.Part, Shares: src.Shares, Format: src.Format, CSV: src.CSV, Positive: src.Positive, Size: src.Size, Labels: labels}, file)
	if err != nil {
		return out, err
	}
	return out, c.call(ctx, http.MethodPost, "/v1/data/import", body, &out)
}

// Backup writes the store to w, as Store.Backup does.
func (c *Controller) Backup(ctx context.Context, w io.Writer, lock seal.Lock) error {
	body, err := order(lock, http.NoBody)
	if err != nil {
		return err
	}
	resp, err := c.send(ctx, http.MethodPost, "/v1/data/backup", body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(w, resp.Body); err != nil {
		return fmt.Errorf("the backup broke off; the node's log says why: %w", err)
	}
	return nil
}

// Restore reads a backup into the node's store, as Store.Restore does.
func (c *Controller) Restore(ctx context.Context, file io.Reader, unlock seal.Unlock, size int64) ([]Import, error) {
	body, err := order(struct {
		Unlock seal.Unlock
		Size   int64
	}{unlock, size}, file)
	if err != nil {
		return nil, err
	}
	var out []Import
	return out, c.call(ctx, http.MethodPost, "/v1/data/restore", body, &out)
}
