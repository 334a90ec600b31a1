package checkpoint_test
import ("testing";"os";"path/filepath";"strings";"encoding/json";"sluice/internal/checkpoint";"testing/fstest")
func TestCorpusX(t *testing.T){
 filepath.WalkDir("/tmp/checkpoint/ct", func(p string, d os.DirEntry, err error) error { if !strings.HasSuffix(p,".jinja") {return nil}; b,_:=os.ReadFile(p); t.Log(filepath.Base(p), checkpoint.CheckTemplate(string(b))); return nil})
 filepath.WalkDir("/tmp/checkpoint/corpus/tests/assets/samples/jinja2", func(p string, d os.DirEntry, err error) error { if !strings.HasSuffix(p,".json") {return nil}; b,_:=os.ReadFile(p); var m map[string]any; json.Unmarshal(b,&m); s,_:=m["chat_template"].(string); t.Log(strings.TrimPrefix(p,"/tmp/checkpoint/corpus/tests/assets/samples/"), len(s), checkpoint.CheckTemplate(s)); return nil})
 n,bad:=0,0
 filepath.WalkDir("/tmp/checkpoint/corpus", func(p string, d os.DirEntry, err error) error { if d.IsDir()||strings.Contains(p,"jinja2") {return nil}; b,_:=os.ReadFile(p); r,err:=checkpoint.Inspect(t.Context(), fstest.MapFS{filepath.Base(p):{Data:b}}, checkpoint.Options{Kind:"dataset"}); if err!=nil {t.Error(p,err);return nil}; n++; if r.Verdict=="pass" {bad++; t.Log("PASS",p,r.Files,len(b)) }
  for _,name:=range []string{"vocab.txt","a.json","README.md","model.safetensors","tokenizer.model","a.png"} { r,_:=checkpoint.Inspect(t.Context(), fstest.MapFS{name:{Data:b}}, checkpoint.Options{Kind:"dataset"}); if r.Verdict=="pass" && !strings.Contains(p,".safetensors") && !strings.HasSuffix(p,".json") { t.Log("RENAMED PASS",name,p,r.Files,len(b)) } }
 return nil})
 t.Log(n,bad)
}
