// Tlogverify checks a Placet audit log with nothing of Placet: golang.org/x/mod/sumdb's note and tlog do the work.
//
//	tlogverify bundle   -vkey KEY -bundle FILE.tar [-old CHECKPOINT] [-entries N,N,…] [-witness KEY]
//	tlogverify evidence -vkey KEY -evidence FILE.json -entry FILE
//	tlogverify http     -vkey KEY -url PREFIX -entry FILE -index N [-old CHECKPOINT]
//
// bundle reads an export: signature, root from all entries, every hash tile, inclusion of the entries asked for,
// consistency with an older checkpoint, cosignatures. evidence checks one proof as it stands in a manifest. http reads
// hash tiles over the network (c2sp.org/tlog-tiles) and proves an entry and an older checkpoint against them.
//
// It ends with status 0 and one line of JSON, or with status 1 and the reason.
package main

import (
	"archive/tar"
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const tileHeight = 8

func main() {
	if len(os.Args) < 2 {
		fail(errors.New("say what to verify: bundle, evidence or http"))
	}
	flags := flag.NewFlagSet(os.Args[1], flag.ExitOnError)
	vkey := flags.String("vkey", "", "verifier key of the log")
	bundle := flags.String("bundle", "", "export bundle")
	old := flags.String("old", "", "older checkpoint, kept elsewhere")
	entries := flags.String("entries", "", "entries to prove, by number")
	witness := flags.String("witness", "", "verifier key of a witness that must have cosigned")
	evidence := flags.String("evidence", "", "proof of one entry")
	entry := flags.String("entry", "", "the entry's bytes")
	index := flags.Int64("index", -1, "number of the entry")
	url := flags.String("url", "", "prefix of the tile endpoints")
	flags.Parse(os.Args[2:])

	var result map[string]any
	var err error
	switch os.Args[1] {
	case "bundle":
		result, err = verifyBundle(*vkey, *bundle, *old, *entries, *witness)
	case "evidence":
		result, err = verifyEvidence(*vkey, *evidence, *entry)
	case "http":
		result, err = verifyHTTP(*vkey, *url, *old, *entry, *index)
	default:
		err = fmt.Errorf("unknown command %q", os.Args[1])
	}
	if err != nil {
		fail(err)
	}
	json.NewEncoder(os.Stdout).Encode(result)
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "tlogverify:", err)
	os.Exit(1)
}

// openTree verifies a checkpoint and returns the tree that it signs.
func openTree(message []byte, verifiers ...note.Verifier) (tlog.Tree, *note.Note, error) {
	opened, err := note.Open(message, note.VerifierList(verifiers...))
	if err != nil {
		return tlog.Tree{}, nil, fmt.Errorf("checkpoint: %w", err)
	}
	lines := strings.Split(opened.Text, "\n")
	if len(lines) != 4 || lines[0] != verifiers[0].Name() {
		return tlog.Tree{}, nil, errors.New("checkpoint: not origin, size and root")
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil || size < 0 {
		return tlog.Tree{}, nil, errors.New("checkpoint: size")
	}
	root, err := tlog.ParseHash(lines[2])
	if err != nil {
		return tlog.Tree{}, nil, fmt.Errorf("checkpoint: %w", err)
	}
	return tlog.Tree{N: size, Hash: root}, opened, nil
}

func verifyBundle(vkey, path, oldPath, entryList, witnessKey string) (map[string]any, error) {
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		return nil, err
	}
	files, err := untar(path)
	if err != nil {
		return nil, err
	}
	tree, _, err := openTree(files["checkpoint"], verifier)
	if err != nil {
		return nil, err
	}

	// (1) the root follows from the entries alone
	var stored []tlog.Hash
	reader := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		hashes := make([]tlog.Hash, len(indexes))
		for i, index := range indexes {
			if index >= int64(len(stored)) {
				return nil, errors.New("the entries are fewer than were signed")
			}
			hashes[i] = stored[index]
		}
		return hashes, nil
	})
	var leaves [][]byte
	for n := int64(0); n < tree.N; n++ {
		if n%(1<<tileHeight) == 0 {
			tile := tlog.Tile{H: tileHeight, L: -1, N: n >> tileHeight, W: width(tree.N, n>>tileHeight)}
			if leaves, err = splitEntries(files[c2spPath(tile)], tile.W); err != nil {
				return nil, fmt.Errorf("entries from %d: %w", n, err)
			}
		}
		hashes, err := tlog.StoredHashes(n, leaves[n%(1<<tileHeight)], reader)
		if err != nil {
			return nil, err
		}
		stored = append(stored, hashes...)
	}
	root, err := tlog.TreeHash(tree.N, reader)
	if err != nil {
		return nil, err
	}
	if root != tree.Hash {
		return nil, errors.New("the entries do not lead to the root that was signed")
	}

	// (2) every hash tile is what follows from the entries
	numTiles := 0
	for level := 0; tree.N>>(tileHeight*level) > 0; level++ {
		count := tree.N >> (tileHeight * level)
		for n := int64(0); n<<tileHeight < count; n++ {
			tile := tlog.Tile{H: tileHeight, L: level, N: n, W: width(count, n)}
			want, err := tlog.ReadTileData(tile, reader)
			if err != nil {
				return nil, err
			}
			if !bytes.Equal(want, files[c2spPath(tile)]) {
				return nil, fmt.Errorf("%s is not what follows from the entries", c2spPath(tile))
			}
			numTiles++
		}
	}

	// (3) inclusion of the entries asked for, (4) consistency with an older checkpoint: both from the tiles
	tiles := tlog.TileHashReader(tree, tileFiles(files))
	proven := []int64{}
	for _, text := range strings.FieldsFunc(entryList, func(r rune) bool { return r == ',' }) {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < 0 || n >= tree.N {
			return nil, fmt.Errorf("there is no entry %s", text)
		}
		bundle, err := splitEntries(
			files[c2spPath(tlog.Tile{H: tileHeight, L: -1, N: n >> tileHeight, W: width(tree.N, n>>tileHeight)})],
			width(tree.N, n>>tileHeight))
		if err != nil {
			return nil, err
		}
		if err := prove(tree, n, bundle[n%(1<<tileHeight)], tiles); err != nil {
			return nil, err
		}
		proven = append(proven, n)
	}
	result := map[string]any{
		"origin": verifier.Name(), "size": tree.N, "root": tree.Hash.String(), "tiles": numTiles, "proven": proven,
	}
	if oldPath != "" {
		if result["old_size"], err = extends(tree, oldPath, verifier, tiles); err != nil {
			return nil, err
		}
	}

	// (5) what a witness has seen
	if witnessKey != "" {
		witness, err := newCosignatureVerifier(witnessKey)
		if err != nil {
			return nil, err
		}
		seen, opened, err := openTree(files["cosigned"], verifier, witness)
		if err != nil {
			return nil, err
		}
		if len(opened.Sigs) != 2 {
			return nil, errors.New("the witness has not cosigned")
		}
		if err := checkExtends(tree, seen, tiles); err != nil {
			return nil, err
		}
		result["cosigned_size"], result["cosigned_by"] = seen.N, witness.Name()
	}
	return result, nil
}

func verifyEvidence(vkey, evidencePath, entryPath string) (map[string]any, error) {
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		return nil, err
	}
	var evidence struct {
		Index          int64    `json:"index"`
		TreeSize       int64    `json:"tree_size"`
		InclusionProof []string `json:"inclusion_proof"`
		Checkpoint     string   `json:"checkpoint"`
	}
	data, err := os.ReadFile(evidencePath)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(data, &evidence); err != nil {
		return nil, err
	}
	entry, err := os.ReadFile(entryPath)
	if err != nil {
		return nil, err
	}
	tree, _, err := openTree([]byte(evidence.Checkpoint), verifier)
	if err != nil {
		return nil, err
	}
	if tree.N != evidence.TreeSize {
		return nil, errors.New("the evidence names another size than its checkpoint")
	}
	var proof tlog.RecordProof
	for _, text := range evidence.InclusionProof {
		raw, err := hex.DecodeString(text)
		if err != nil || len(raw) != tlog.HashSize {
			return nil, errors.New("a hash of the proof is malformed")
		}
		proof = append(proof, tlog.Hash(*(*[tlog.HashSize]byte)(raw)))
	}
	if err := tlog.CheckRecord(proof, tree.N, tree.Hash, evidence.Index, tlog.RecordHash(entry)); err != nil {
		return nil, fmt.Errorf("entry %d: %w", evidence.Index, err)
	}
	return map[string]any{"index": evidence.Index, "size": tree.N}, nil
}

func verifyHTTP(vkey, prefix, oldPath, entryPath string, index int64) (map[string]any, error) {
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		return nil, err
	}
	entry, err := os.ReadFile(entryPath)
	if err != nil {
		return nil, err
	}
	source := &tileServer{prefix: strings.TrimSuffix(prefix, "/") + "/"}
	message, err := source.get("checkpoint")
	if err != nil {
		return nil, err
	}
	tree, _, err := openTree(message, verifier)
	if err != nil {
		return nil, err
	}
	tiles := tlog.TileHashReader(tree, source)
	if index < 0 || index >= tree.N {
		return nil, fmt.Errorf("there is no entry %d", index)
	}
	if err := prove(tree, index, entry, tiles); err != nil {
		return nil, err
	}
	result := map[string]any{"index": index, "size": tree.N, "root": tree.Hash.String()}
	if oldPath != "" {
		if result["old_size"], err = extends(tree, oldPath, verifier, tiles); err != nil {
			return nil, err
		}
	}
	result["requests"] = source.numRequests
	return result, nil
}

// prove makes an inclusion proof and checks it against the entry's own bytes.
func prove(tree tlog.Tree, n int64, entry []byte, reader tlog.HashReader) error {
	proof, err := tlog.ProveRecord(tree.N, n, reader)
	if err != nil {
		return fmt.Errorf("entry %d: %w", n, err)
	}
	if err := tlog.CheckRecord(proof, tree.N, tree.Hash, n, tlog.RecordHash(entry)); err != nil {
		return fmt.Errorf("entry %d: %w", n, err)
	}
	return nil
}

// extends checks that the tree contains the one that an older checkpoint signs, and returns that one's size.
func extends(tree tlog.Tree, oldPath string, verifier note.Verifier, reader tlog.HashReader) (int64, error) {
	message, err := os.ReadFile(oldPath)
	if err != nil {
		return 0, err
	}
	old, _, err := openTree(message, verifier)
	if err != nil {
		return 0, err
	}
	return old.N, checkExtends(tree, old, reader)
}

func checkExtends(tree, old tlog.Tree, reader tlog.HashReader) error {
	if old.N > tree.N {
		return fmt.Errorf("the log has %d entries, fewer than the %d that were signed before", tree.N, old.N)
	}
	if old.N == 0 {
		return nil
	}
	proof, err := tlog.ProveTree(tree.N, old.N, reader)
	if err != nil {
		return fmt.Errorf("consistency: %w", err)
	}
	if err := tlog.CheckTree(proof, tree.N, tree.Hash, old.N, old.Hash); err != nil {
		return fmt.Errorf("the log does not continue the older checkpoint: %w", err)
	}
	return nil
}

// width says how much of tile n of a level with count hashes there is.
func width(count, n int64) int {
	if rest := count - n<<tileHeight; rest < 1<<tileHeight {
		return int(rest)
	}
	return 1 << tileHeight
}

// c2spPath turns sumdb's path of a tile, tile/8/L/N or tile/8/data/N, into that of c2sp.org/tlog-tiles.
func c2spPath(tile tlog.Tile) string {
	path := strings.TrimPrefix(tile.Path(), fmt.Sprintf("tile/%d/", tileHeight))
	return "tile/" + strings.Replace(path, "data/", "entries/", 1)
}

// splitEntries cuts a bundle into its entries: uint16 length, big-endian, then the bytes.
func splitEntries(data []byte, count int) ([][]byte, error) {
	var entries [][]byte
	for len(data) > 0 {
		if len(data) < 2 || len(data) < 2+int(binary.BigEndian.Uint16(data)) {
			return nil, errors.New("cut off")
		}
		end := 2 + int(binary.BigEndian.Uint16(data))
		entries = append(entries, data[2:end])
		data = data[end:]
	}
	if len(entries) != count {
		return nil, fmt.Errorf("%d entries where %d were signed", len(entries), count)
	}
	return entries, nil
}

func untar(path string) (map[string][]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	files := map[string][]byte{}
	for reader := tar.NewReader(file); ; {
		header, err := reader.Next()
		if err == io.EOF {
			return files, nil
		}
		if err != nil {
			return nil, err
		}
		if files[header.Name], err = io.ReadAll(reader); err != nil {
			return nil, err
		}
	}
}

// tileFiles reads tiles out of an unpacked bundle.
type tileFiles map[string][]byte

func (tileFiles) Height() int                     { return tileHeight }
func (tileFiles) SaveTiles([]tlog.Tile, [][]byte) {}
func (f tileFiles) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var found [][]byte
	for _, tile := range tiles {
		data, ok := f[c2spPath(tile)]
		if !ok {
			return nil, fmt.Errorf("%s is missing", c2spPath(tile))
		}
		found = append(found, data)
	}
	return found, nil
}

// tileServer reads tiles over HTTP.
type tileServer struct {
	prefix      string
	numRequests int
}

func (*tileServer) Height() int                     { return tileHeight }
func (*tileServer) SaveTiles([]tlog.Tile, [][]byte) {}
func (s *tileServer) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var found [][]byte
	for _, tile := range tiles {
		data, err := s.get(c2spPath(tile))
		if err != nil {
			return nil, err
		}
		found = append(found, data)
	}
	return found, nil
}

func (s *tileServer) get(path string) ([]byte, error) {
	s.numRequests++
	response, err := http.Get(s.prefix + path)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", path, response.Status)
	}
	return io.ReadAll(io.LimitReader(response.Body, 1<<24))
}

// cosignatureVerifier is a note.Verifier for c2sp.org/tlog-cosignature, type 0x04.
type cosignatureVerifier struct {
	name string
	hash uint32
	key  ed25519.PublicKey
}

func newCosignatureVerifier(vkey string) (*cosignatureVerifier, error) {
	parts := strings.SplitN(vkey, "+", 3)
	if len(parts) != 3 {
		return nil, errors.New("malformed witness key")
	}
	raw, err := base64.StdEncoding.DecodeString(parts[2])
	if err != nil || len(raw) != 1+ed25519.PublicKeySize || raw[0] != 0x04 {
		return nil, errors.New("malformed witness key")
	}
	sum := sha256.Sum256(append([]byte(parts[0]+"\n"), raw...))
	if hex.EncodeToString(sum[:4]) != parts[1] {
		return nil, errors.New("the key id of the witness key is wrong")
	}
	return &cosignatureVerifier{parts[0], binary.BigEndian.Uint32(sum[:4]), raw[1:]}, nil
}

func (v *cosignatureVerifier) Name() string    { return v.name }
func (v *cosignatureVerifier) KeyHash() uint32 { return v.hash }
func (v *cosignatureVerifier) Verify(text, signature []byte) bool {
	if len(signature) != 8+ed25519.SignatureSize {
		return false
	}
	message := fmt.Sprintf("cosignature/v1\ntime %d\n%s", binary.BigEndian.Uint64(signature), text)
	return ed25519.Verify(v.key, []byte(message), signature[8:])
}
