// vcsim for the tests of Holdfast: govmomi's simulator of a vCenter or an ESXi host, whose datastores are
// directories, and beside it what the simulator leaves out and a test has to see asked for. Whatever is
// added here is from VMware's reference, not from a vCenter: docs/guides/vmware.md says so of each.
package main

import (
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// reader is a user who may see everything and do nothing.
const reader = "reader"

var changing = []string{
	"CreateSnapshot_Task", "ReconfigVM_Task", "QueryChangedDiskAreas", "CreateVM_Task", "PowerOnVM_Task",
	"MakeDirectory", "CreateVirtualDisk_Task", "DeleteDatastoreFile_Task",
}

func main() {
	state := flag.String("state", "", "directory of what tests say and the simulator keeps")
	esx := flag.Bool("esx", false, "one ESXi host instead of a vCenter")
	plain := flag.Bool("plain", false, "add nothing to govmomi's simulator")
	cert := flag.String("tlscert", "", "PEM of its certificate")
	key := flag.String("tlskey", "", "PEM of the key of that")
	password := flag.String("password", "", "of the users 'backup' and 'reader'")
	listen := flag.String("l", "127.0.0.1:0", "where to listen")
	flag.Parse()

	model := simulator.VPX()
	if *esx {
		model = simulator.ESX()
	}
	model.Machine = 0
	model.Datastore = 2
	defer model.Remove()
	if err := model.Create(); err != nil {
		log.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(*cert, *key)
	if err != nil {
		log.Fatal(err)
	}
	model.Service.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	model.Service.Listen = &url.URL{Host: *listen, User: url.UserPassword("backup", *password)}
	sessions := model.Map().Get(*model.ServiceContent.SessionManager).(*simulator.SessionManager)
	sessions.ValidLogin = func(req *types.Login) bool {
		return req.Password == *password && (req.UserName == "backup" || req.UserName == reader)
	}
	if !*plain {
		model.Map().Handler = newAdditions(*state, model.Map()).handle
	}
	server := model.Service.NewServer()
	if !*plain {
		server.Config.Handler = gate(*state, server.Config.Handler)
	}
	fmt.Println(server.URL.Host)
	select {}
}

// gate lets nobody to the datastores' files without a session, and slows them down while a test wants that.
// It tells in the file "reads" how many reads of disks there were, and how many at most at once; in "sent" how
// many bytes of disks were sent here.
func gate(state string, next http.Handler) http.Handler {
	var lock sync.Mutex
	var count, now, most int
	var sent atomic.Int64
	begin := func() {
		lock.Lock()
		defer lock.Unlock()
		count, now = count+1, now+1
		most = max(most, now)
		_ = os.WriteFile(filepath.Join(state, "reads"), fmt.Appendf(nil, "%d %d", count, most), 0o600)
	}
	end := func() {
		lock.Lock()
		defer lock.Unlock()
		now--
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/folder/") {
			if cookie, err := r.Cookie("vmware_soap_session"); err != nil || cookie.Value == "" {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			if r.Method == http.MethodPut && strings.Contains(r.URL.Path, "-flat") {
				r.Body = &counted{r.Body, &sent}
				defer func() {
					_ = os.WriteFile(filepath.Join(state, "sent"), fmt.Append(nil, sent.Load()), 0o600)
				}()
			}
			if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "-flat") {
				begin()
				defer end()
				if wants(state, "slow") {
					time.Sleep(time.Second)
				}
			}
		}
		next.ServeHTTP(w, r)
	})
}

// counted counts what is read of it.
type counted struct {
	io.ReadCloser
	sent *atomic.Int64
}

func (c *counted) Read(into []byte) (int, error) {
	n, err := c.ReadCloser.Read(into)
	c.sent.Add(int64(n))
	return n, err
}

func wants(state string, what string) bool {
	_, err := os.Stat(filepath.Join(state, what))
	return err == nil
}

func (a *additions) handle(ctx *simulator.Context, method *simulator.Method) (mo.Reference, types.BaseMethodFault) {
	if ctx.Session != nil && ctx.Session.UserName == reader {
		if slices.Contains(changing, method.Name) {
			return nil, &types.NoPermission{Object: &method.This, PrivilegeId: "Holdfast." + method.Name}
		}
		if method.Name == "HasPrivilegeOnEntity" {
			method.This = a.refusing.Self
		}
	}
	vm, ok := ctx.Map.Get(method.This).(*simulator.VirtualMachine)
	if !ok {
		return nil, nil
	}
	switch method.Name {
	case "CreateSnapshot_Task":
		if method.Body.(*types.CreateSnapshot_Task).Quiesce && wants(a.state, "refuse-quiesce") {
			return nil, &types.ApplicationQuiesceFault{}
		}
		return nil, a.mark(ctx, vm)
	case "QueryChangedDiskAreas":
		method.This = a.tracker.Self
	}
	return nil, nil
}

// refusing tells of somebody who may see and nothing else. A call is led to it by its name, as the simulator
// passes over whatever a handler gives; it has to have one of the interface's types embedded.
type refusing struct {
	mo.AuthorizationManager
}

// privileges is the answer with every "false" written out, which the interface's own type leaves away.
type privileges struct {
	Res    *HasPrivilegeOnEntityResponse
	Fault_ *soap.Fault
}

// HasPrivilegeOnEntityResponse has the name that the answer is written under.
type HasPrivilegeOnEntityResponse struct {
	Returnval []string `xml:"returnval"`
}

func (b *privileges) Fault() *soap.Fault { return b.Fault_ }

func (m *refusing) HasPrivilegeOnEntity(req *types.HasPrivilegeOnEntity) soap.HasFault {
	body := &privileges{Res: &HasPrivilegeOnEntityResponse{}}
	for _, one := range req.PrivId {
		body.Res.Returnval = append(body.Res.Returnval, fmt.Sprint(strings.HasPrefix(one, "System.")))
	}
	return body
}
