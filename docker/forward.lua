-- Forward every radiograph to the node, once. Orthanc calls OnStoredInstance for an instance that it has already, too,
-- so the instance itself remembers that it was forwarded (UserMetadata in orthanc.json).
-- An image that the node could not take is not tried again: send it by hand from Orthanc's page of the study.

local NODE = "node"                 -- its name in DicomModalities
local NODE_AE_TITLE = "PNEUMONIA"
local RADIOGRAPHS = { CR = true, DX = true }

local function wasForwarded(metadata)
   for _, name in ipairs(ParseJson(RestApiGet(metadata))) do
      if name == "Forwarded" then
         return true
      end
   end
   return false
end

function OnStoredInstance(instanceId, tags, _, origin)
   local metadata = "/instances/" .. instanceId .. "/metadata"
   local fromNode = origin["RemoteAet"] == NODE_AE_TITLE
   if RADIOGRAPHS[tags["Modality"] or ""] and not fromNode and not wasForwarded(metadata) then
      RestApiPut(metadata .. "/Forwarded", NODE)
      SendToModality(instanceId, NODE)
   end
end
