BEGIN TRANSACTION;
CREATE TABLE branch_states (
	configuration_key INTEGER NOT NULL, 
	row_id VARCHAR NOT NULL, 
	branch_id INTEGER NOT NULL, 
	state TEXT NOT NULL, 
	state_version INTEGER NOT NULL, 
	PRIMARY KEY (configuration_key, row_id, branch_id), 
	FOREIGN KEY(configuration_key) REFERENCES configurations ("key") ON DELETE CASCADE, 
	FOREIGN KEY(branch_id) REFERENCES branches (id) ON DELETE CASCADE
);
INSERT INTO "branch_states" VALUES(1,'r',3,'{"dev":1}',1);
CREATE TABLE branches (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	project_id INTEGER NOT NULL, 
	name VARCHAR NOT NULL, 
	description TEXT NOT NULL, 
	is_default BOOLEAN NOT NULL, 
	created DATETIME NOT NULL, 
	creator_id VARCHAR, 
	creator_description VARCHAR, 
	UNIQUE (project_id, name), 
	FOREIGN KEY(project_id) REFERENCES projects (id) ON DELETE CASCADE
);
INSERT INTO "branches" VALUES(1,1,'Main','',1,'2026-03-01 10:20:30.000000',NULL,NULL);
INSERT INTO "branches" VALUES(2,2,'Main','',1,'2026-03-01 10:20:30.000000',NULL,NULL);
INSERT INTO "branches" VALUES(3,1,'dev','',0,'2026-03-01 10:20:30.000000',NULL,NULL);
CREATE TABLE components (
	id VARCHAR NOT NULL, 
	document TEXT NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "components" VALUES('x','{"id":"x","type":"application"}');
CREATE TABLE configuration_rows (
	configuration_key INTEGER NOT NULL, 
	id VARCHAR NOT NULL, 
	position INTEGER NOT NULL, 
	version INTEGER NOT NULL, 
	is_deleted BOOLEAN NOT NULL, 
	created DATETIME NOT NULL, 
	creator_id VARCHAR, 
	creator_description VARCHAR, 
	state TEXT NOT NULL, 
	state_version INTEGER NOT NULL, 
	PRIMARY KEY (configuration_key, id), 
	FOREIGN KEY(configuration_key) REFERENCES configurations ("key") ON DELETE CASCADE
);
INSERT INTO "configuration_rows" VALUES(1,'r',0,1,0,'2026-03-01 10:20:30.000000',NULL,NULL,'{}',0);
CREATE TABLE configuration_versions (
	configuration_key INTEGER NOT NULL, 
	version INTEGER NOT NULL, 
	name VARCHAR NOT NULL, 
	description TEXT NOT NULL, 
	configuration TEXT NOT NULL, 
	is_disabled BOOLEAN NOT NULL, 
	change_description TEXT NOT NULL, 
	created DATETIME NOT NULL, 
	creator_id VARCHAR, 
	creator_description VARCHAR, 
	rows_sort_order TEXT NOT NULL, 
	rows TEXT NOT NULL, 
	PRIMARY KEY (configuration_key, version), 
	FOREIGN KEY(configuration_key) REFERENCES configurations ("key") ON DELETE CASCADE
);
INSERT INTO "configuration_versions" VALUES(1,1,'first','','{"z":1,"a":[]}',0,'Configuration created','2026-03-01 10:20:30.000000',NULL,NULL,'[]','[]');
INSERT INTO "configuration_versions" VALUES(1,2,'first','','{"z":1,"a":[]}',0,'Row r added','2026-03-01 10:20:30.000000',NULL,NULL,'[]','[["r",1]]');
INSERT INTO "configuration_versions" VALUES(1,3,'second','','{"z":1,"a":[]}',0,'Configuration updated','2026-03-01 10:20:30.000000',NULL,NULL,'[]','[["r",1]]');
INSERT INTO "configuration_versions" VALUES(2,1,'other','','{}',0,'Configuration created','2026-03-01 10:20:30.000000',NULL,NULL,'[]','[]');
INSERT INTO "configuration_versions" VALUES(3,1,'gone','','{}',0,'Configuration created','2026-03-01 10:20:30.000000',NULL,NULL,'[]','[]');
INSERT INTO "configuration_versions" VALUES(3,2,'gone','','{}',0,'Configuration deleted','2026-03-01 10:20:30.000000',NULL,NULL,'[]','[]');
CREATE TABLE configurations (
	"key" INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	project_id INTEGER NOT NULL, 
	component_id VARCHAR NOT NULL, 
	id VARCHAR NOT NULL, 
	version INTEGER NOT NULL, 
	is_deleted BOOLEAN NOT NULL, 
	created DATETIME NOT NULL, 
	creator_id VARCHAR, 
	creator_description VARCHAR, 
	state TEXT NOT NULL, 
	state_version INTEGER NOT NULL, 
	UNIQUE (project_id, component_id, id), 
	FOREIGN KEY(project_id) REFERENCES projects (id) ON DELETE CASCADE
);
INSERT INTO "configurations" VALUES(1,1,'x','c',3,0,'2026-03-01 10:20:30.000000',NULL,NULL,'{"s":1}',1);
INSERT INTO "configurations" VALUES(2,2,'x','c',1,0,'2026-03-01 10:20:30.000000',NULL,NULL,'{}',0);
INSERT INTO "configurations" VALUES(3,1,'x','g',2,1,'2026-03-01 10:20:30.000000',NULL,NULL,'{}',0);
CREATE TABLE counters (
	name VARCHAR NOT NULL, 
	value BIGINT NOT NULL, 
	PRIMARY KEY (name)
);
CREATE TABLE file_slices (
	file_id INTEGER NOT NULL, 
	position INTEGER NOT NULL, 
	name VARCHAR NOT NULL, 
	PRIMARY KEY (file_id, position), 
	FOREIGN KEY(file_id) REFERENCES files (id) ON DELETE CASCADE
);
CREATE TABLE file_tags (
	file_id INTEGER NOT NULL, 
	tag VARCHAR NOT NULL, 
	position INTEGER NOT NULL, 
	PRIMARY KEY (file_id, tag), 
	FOREIGN KEY(file_id) REFERENCES files (id) ON DELETE CASCADE
);
CREATE TABLE files (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	project VARCHAR NOT NULL, 
	branch VARCHAR DEFAULT '' NOT NULL, 
	name VARCHAR NOT NULL, 
	name_lower VARCHAR NOT NULL, 
	name_words VARCHAR NOT NULL, 
	created DATETIME NOT NULL, 
	expires DATETIME, 
	size_bytes BIGINT NOT NULL, 
	is_public BOOLEAN NOT NULL, 
	is_encrypted BOOLEAN NOT NULL, 
	is_sliced BOOLEAN NOT NULL, 
	max_age_days INTEGER, 
	run_id VARCHAR, 
	creator_id VARCHAR, 
	creator_description VARCHAR, 
	import_key VARCHAR, 
	content VARCHAR, 
	UNIQUE (project, import_key)
);
CREATE TABLE oauth_credentials (
	project_id INTEGER NOT NULL, 
	component_id VARCHAR NOT NULL, 
	id VARCHAR NOT NULL, 
	document TEXT NOT NULL, 
	created DATETIME NOT NULL, 
	PRIMARY KEY (project_id, component_id, id), 
	FOREIGN KEY(project_id) REFERENCES projects (id) ON DELETE CASCADE
);
CREATE TABLE projects (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	name VARCHAR NOT NULL, 
	created DATETIME NOT NULL, 
	features TEXT NOT NULL, 
	limits TEXT NOT NULL
);
INSERT INTO "projects" VALUES(1,'one','2026-03-01 10:20:30.000000','[]','{}');
INSERT INTO "projects" VALUES(2,'two','2026-03-01 10:20:30.000000','[]','{}');
CREATE TABLE row_versions (
	configuration_key INTEGER NOT NULL, 
	row_id VARCHAR NOT NULL, 
	version INTEGER NOT NULL, 
	name VARCHAR NOT NULL, 
	description TEXT NOT NULL, 
	configuration TEXT NOT NULL, 
	is_disabled BOOLEAN NOT NULL, 
	change_description TEXT NOT NULL, 
	created DATETIME NOT NULL, 
	creator_id VARCHAR, 
	creator_description VARCHAR, 
	PRIMARY KEY (configuration_key, row_id, version), 
	FOREIGN KEY(configuration_key) REFERENCES configurations ("key") ON DELETE CASCADE
);
INSERT INTO "row_versions" VALUES(1,'r',1,'','','{"r":1}',0,'Row r added','2026-03-01 10:20:30.000000',NULL,NULL);
CREATE TABLE state_keys (
	configuration_key INTEGER NOT NULL, 
	row_id VARCHAR NOT NULL, 
	"key" VARCHAR NOT NULL, 
	written DATETIME NOT NULL, 
	PRIMARY KEY (configuration_key, row_id, "key"), 
	FOREIGN KEY(configuration_key) REFERENCES configurations ("key") ON DELETE CASCADE
);
INSERT INTO "state_keys" VALUES(1,'','k','2026-03-01 10:20:30.000000');
CREATE TABLE tokens (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	project_id INTEGER NOT NULL, 
	description VARCHAR NOT NULL, 
	role VARCHAR NOT NULL, 
	secret_hash VARCHAR NOT NULL, 
	created DATETIME NOT NULL, 
	expires DATETIME, 
	component_access TEXT, 
	bucket_permissions TEXT, 
	FOREIGN KEY(project_id) REFERENCES projects (id) ON DELETE CASCADE, 
	UNIQUE (secret_hash)
);
CREATE TABLE vaka_local_schema (
	version INTEGER NOT NULL, 
	PRIMARY KEY (version)
);
INSERT INTO "vaka_local_schema" VALUES(3);
CREATE TABLE vault_variables (
	project_id INTEGER NOT NULL, 
	branch VARCHAR NOT NULL, 
	name VARCHAR NOT NULL, 
	value TEXT NOT NULL, 
	is_encrypted BOOLEAN NOT NULL, 
	PRIMARY KEY (project_id, branch, name), 
	FOREIGN KEY(project_id) REFERENCES projects (id) ON DELETE CASCADE
);
CREATE INDEX files_by_expiry ON files (expires);
CREATE INDEX files_by_project ON files (project, id);
CREATE INDEX files_by_tag ON file_tags (tag, file_id);
CREATE INDEX ix_branch_states_branch_id ON branch_states (branch_id);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('projects',2);
INSERT INTO "sqlite_sequence" VALUES('branches',3);
INSERT INTO "sqlite_sequence" VALUES('configurations',3);
COMMIT;
